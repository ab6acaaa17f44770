//! Texts that clients hand back and cannot read, such as where a list goes on that holds what they may not see.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::Sha256;

/// What the key is made for, out of that of tokens.
const PURPOSE: &[u8] = b"dramatis: where lists go on";

/// Seals and opens. Sealed with one key, a text is opened by every process that has it.
pub struct Seal {
    key: Option<LessSafeKey>,
    random: SystemRandom,
}

impl Seal {
    /// A seal of the holder of this secret.
    pub(super) fn of(secret: &[u8]) -> Self {
        let key = Hmac::<Sha256>::new_from_slice(secret).ok().and_then(|mac| {
            let key = mac.chain_update(PURPOSE).finalize().into_bytes();
            UnboundKey::new(&CHACHA20_POLY1305, &key).ok()
        });
        Self { key: key.map(LessSafeKey::new), random: SystemRandom::new() }
    }

    /// A text that only a holder of the key reads; `None` where the system has no random numbers.
    pub fn seal(&self, text: &str) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut bytes = text.as_bytes().to_vec();
        let aad = Aad::empty();
        self.key
            .as_ref()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut bytes)
            .ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &bytes].concat()))
    }

    /// What was sealed with the same key.
    pub fn open(&self, sealed: &str) -> Option<String> {
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, bytes) = bytes.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let text = self.key.as_ref()?.open_in_place(nonce, Aad::empty(), bytes).ok()?;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_key_opens_what_nobody_else_reads_or_changes() {
        let (seal, again, other) = (Seal::of(b"a secret"), Seal::of(b"a secret"), Seal::of(b"another one"));
        for text in ["", "room-main.the-merger/Project Falcon", "ü"] {
            let sealed = seal.seal(text).unwrap();
            assert_eq!(again.open(&sealed).as_deref(), Some(text));
            assert_eq!(other.open(&sealed), None);
            assert_ne!(
                seal.seal(text),
                Some(sealed.clone()),
                "who sees two does not see that they are the same"
            );
            for at in 0..sealed.len() {
                let mut changed = sealed.clone().into_bytes();
                *changed.get_mut(at).unwrap() ^= 1;
                assert_eq!(seal.open(&String::from_utf8(changed).unwrap()), None, "{at}");
            }
        }
        for garbage in ["", "x", "AAAA", "room-main.lobby/7"] {
            assert_eq!(seal.open(garbage), None);
        }
    }
}
