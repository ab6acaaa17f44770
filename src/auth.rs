//! Tokens: who a client is, signed by whoever holds the key. JSON Web Tokens with HS256.
//!
//! Here they are only verified and, for development, minted; the product that people log in to
//! mints its own. A token, a key or a part of one never gets into an error, a log or a `Debug`.

use std::fmt;
use std::path::{Path, PathBuf};

use dramatis_events::{EntityId, MemberId, UnixMillis};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};

use self::claims::{Audience, Shown};
pub use self::claims::{Claims, Kind};
pub use self::seal::Seal;

mod claims;
mod hs256;
mod seal;

/// The fewest bytes of a key: as many as the digest has (RFC 7518, 3.2).
pub const KEY_BYTES_MIN: usize = 32;
/// A token is taken this much before its time, seconds: who mints one for now may have a clock that is ahead.
const NOT_BEFORE_LEEWAY_S: u64 = 10;
/// What a token may say that it is (RFC 7519, 5.1; RFC 9068, 2.1).
const TYPES: [&str; 2] = ["JWT", "at+jwt"];
/// What stands for the own stream of a token's user among the rooms that it names. No room is called so.
const OWN: &str = "me";
/// The most rooms that a token may name.
pub const ROOMS_MAX: usize = 1_000;

/// A verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Whose it is.
    pub user: MemberId,
    /// When it runs out.
    pub expires_at: UnixMillis,
    rooms: Option<Vec<EntityId>>,
}

impl Pass {
    /// Whether it opens this room.
    pub fn opens(&self, room: &EntityId) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.contains(room))
    }

    /// Whether it opens all rooms.
    pub fn opens_all(&self) -> bool {
        self.rooms.is_none()
    }

    /// Whether it opens its user's own stream: there it is told of any room.
    pub fn opens_own(&self) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.iter().any(|room| room.as_str() == OWN))
    }

    /// Whether it opens the own stream of this member. That of another, for whom an integration may speak,
    /// is opened only by what opens everything.
    pub fn opens_own_of(&self, member: &MemberId) -> bool {
        if *member == self.user { self.opens_own() } else { self.opens_all() }
    }

    /// Whether it opens all rooms that another does.
    pub fn opens_all_of(&self, other: &Self) -> bool {
        match (&self.rooms, &other.rooms) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(rooms), Some(others)) => rooms == others || others.iter().all(|room| rooms.contains(room)),
        }
    }

    /// A pass that opens all rooms that either does, and perhaps others.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self.opens_all_of(&other), other.opens_all_of(&self)) {
            (true, _) => self,
            (false, true) => other,
            (false, false) => Self { rooms: None, ..self },
        }
    }
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was good until it ran out.
    #[error("the token has run out: get a fresh one")]
    Expired,
    /// It is good from a later time on.
    #[error("the token is not good yet, by its nbf and this server's clock: send it again then")]
    NotYet,
    /// It is signed with this key and for somebody else.
    #[error(
        "the token is for another audience: its aud must be left out, or name what auth.audience of this \
         server says"
    )]
    Audience,
    /// It asks for what only those may leave out who know it (RFC 7515, 4.1.11); nothing of it is known here.
    #[error("the token's header has crit, and this server knows no extension: leave it out")]
    Critical,
    /// It says that it is something else, signed with this key for another purpose.
    #[error("the token's header has another typ than JWT or at+jwt: leave it out, or say one of these")]
    Type,
    /// None was shown.
    #[error("a token is wanted here, and none came")]
    Missing,
    /// It is no token, or signed with another key.
    #[error("not a token signed by this server's key with HS256: get a fresh one")]
    Bad,
    /// It is signed and says something that it may not.
    #[error(
        "the token's claims are not as they must be: sub (a member's id), exp (seconds), kind (that of sub, \
         unless that is a person), rooms (a list of room ids), nbf (seconds), aud (a text or a list of them)"
    )]
    Claims,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("auth.token_key_file {}: {error}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The key is too short to be one.
    #[error(
        "auth.token_key_file {} must hold {KEY_BYTES_MIN} bytes or more, and holds {bytes}: \
         `dramatis token --new-key FILE` makes one",
        file.display()
    )]
    TooShort {
        /// The file.
        file: PathBuf,
        /// How many it holds.
        bytes: usize,
    },
}

/// The key that tokens are signed with.
pub struct Keys {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    /// What a token names that is for this server, if it says whom it is for.
    audience: Option<String>,
    seal: Seal,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// Reads the key from its file.
    pub fn read(file: &Path) -> Result<Self, KeyError> {
        let secret = std::fs::read(file).map_err(|error| KeyError::File { file: file.to_owned(), error })?;
        let secret = secret.trim_ascii();
        if secret.len() < KEY_BYTES_MIN {
            return Err(KeyError::TooShort { file: file.to_owned(), bytes: secret.len() });
        }
        Ok(Self::new(secret))
    }

    fn new(secret: &[u8]) -> Self {
        hs256::install();
        let mut validation = Validation::new(Algorithm::HS256);
        // Checked here, against the time that is handed in, and whatever form an audience has.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Self {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation,
            audience: None,
            seal: Seal::of(secret),
        }
    }

    /// Seals what clients are to hand back and not to read.
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// The same, for tokens too that name this as whom they are for; empty for none.
    #[must_use]
    pub fn for_audience(self, audience: &str) -> Self {
        Self { audience: Some(audience.to_owned()).filter(|audience| !audience.is_empty()), ..self }
    }

    /// Checks a token.
    pub fn verify(&self, token: &str, now: UnixMillis) -> Result<Pass, TokenError> {
        // An unknown algorithm is no matter of claims.
        jsonwebtoken::decode_header(token).map_err(|_| TokenError::Bad)?;
        let read = jsonwebtoken::decode::<Shown>(token, &self.decoding, &self.validation);
        let (header, Shown { claims: Claims { sub, exp, kind, rooms }, nbf, aud }) = match read {
            Ok(read) => (read.header, read.claims),
            Err(error) => {
                return Err(match error.kind() {
                    ErrorKind::Json(_) | ErrorKind::MissingRequiredClaim(_) => TokenError::Claims,
                    _ => TokenError::Bad,
                });
            }
        };
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let is_ours = |typ: &String| TYPES.iter().any(|ours| ours.eq_ignore_ascii_case(typ));
        if !header.typ.as_ref().is_none_or(is_ours) {
            return Err(TokenError::Type);
        }
        let of_sub = Kind::of(&sub).ok_or(TokenError::Claims)?;
        let too_many = rooms.as_ref().is_some_and(|rooms| rooms.len() > ROOMS_MAX);
        if kind.unwrap_or(Kind::User) != of_sub || too_many {
            return Err(TokenError::Claims);
        }
        let expires_at = millis(exp);
        if expires_at <= now {
            return Err(TokenError::Expired);
        }
        if nbf.is_some_and(|nbf| millis(nbf.saturating_sub(NOT_BEFORE_LEEWAY_S)) > now) {
            return Err(TokenError::NotYet);
        }
        let is_for_us = |aud: &Audience| self.audience.as_ref().is_some_and(|wanted| aud.names(wanted));
        if !aud.as_ref().is_none_or(is_for_us) {
            return Err(TokenError::Audience);
        }
        Ok(Pass { user: sub, expires_at, rooms })
    }

    /// Signs a token.
    pub fn mint(&self, claims: &Claims) -> Result<String, TokenError> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding)
            .map_err(|_| TokenError::Claims)
    }
}

fn millis(seconds: u64) -> UnixMillis {
    UnixMillis::new(i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis::new(1_000_000_000_000);

    fn keys(secret: &str) -> Keys {
        Keys::new(secret.as_bytes())
    }

    fn claims(sub: &str, kind: Option<Kind>) -> Claims {
        Claims { sub: MemberId::parse(sub).unwrap(), exp: 1_000_000_060, kind, rooms: None }
    }

    #[test]
    fn a_token_of_this_key_is_taken_until_it_runs_out() {
        let keys = keys("a secret of the server, long enough");
        let token = keys.mint(&claims("alice", None)).unwrap();
        let pass = keys.verify(&token, NOW).unwrap();
        assert_eq!((pass.user.to_string().as_str(), pass.expires_at.get()), ("alice", 1_000_000_060_000));
        assert_eq!(keys.verify(&token, pass.expires_at), Err(TokenError::Expired));
    }

    #[test]
    fn the_known_token_of_another_implementation_is_read() {
        // The claims {"sub":"alice","exp":2000000000}, signed by Python's hmac and hashlib.
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MjAwMDAwMDAwMH0.\
                     IzVzylqNHvGtv7YkvSJbwlnOdKDgab7UF9OS-D4Cqe0";
        let pass = keys("0123456789abcdef0123456789abcdef").verify(token, NOW).unwrap();
        assert_eq!(pass.expires_at.get(), 2_000_000_000_000);
    }

    #[test]
    fn parts_of_a_second_do_not_count() {
        let keys = keys("one secret");
        let sign = |exp: serde_json::Value| {
            let claims = serde_json::json!({"sub": "alice", "exp": exp});
            jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &keys.encoding).unwrap()
        };
        for (exp, expires_at) in [("1000000060.9", 1_000_000_060_000), ("1.00000006e9", 1_000_000_060_000)] {
            let token = sign(serde_json::from_str(exp).unwrap());
            assert_eq!(keys.verify(&token, NOW).unwrap().expires_at.get(), expires_at, "{exp}");
        }
        for exp in ["-1", "-1.5", "\"1000000060\"", "null", "1e300"] {
            let token = sign(serde_json::from_str(exp).unwrap());
            assert_eq!(keys.verify(&token, NOW), Err(TokenError::Claims), "{exp}");
        }
    }

    #[test]
    fn a_token_is_taken_from_its_time_on_and_by_whom_it_is_for() {
        let keys = |audience| keys("one secret").for_audience(audience);
        let check = |audience, mut bounds: serde_json::Value| {
            let mut claims = serde_json::json!({"sub": "alice", "exp": 1_000_000_060});
            claims.as_object_mut().unwrap().append(bounds.as_object_mut().unwrap());
            let keys = keys(audience);
            let token =
                jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &keys.encoding).unwrap();
            keys.verify(&token, NOW).map(drop)
        };
        for (nbf, taken) in [
            ("1000000000", Ok(())),
            ("999999000.5", Ok(())),
            ("1000000010", Ok(())),
            ("1000000011", Err(TokenError::NotYet)),
            ("1e300", Err(TokenError::Claims)),
            ("18446744073709551615", Err(TokenError::NotYet)),
            ("\"1000000000\"", Err(TokenError::Claims)),
            ("null", Err(TokenError::Claims)),
        ] {
            let nbf: serde_json::Value = serde_json::from_str(nbf).unwrap();
            assert_eq!(check("", serde_json::json!({"nbf": nbf})), taken, "{nbf}");
        }
        for (audience, aud, taken) in [
            ("", serde_json::json!("chat"), Err(TokenError::Audience)),
            ("chat", serde_json::json!("chat"), Ok(())),
            ("chat", serde_json::json!("Chat"), Err(TokenError::Audience)),
            ("chat", serde_json::json!(["shop", "chat"]), Ok(())),
            ("chat", serde_json::json!(["shop"]), Err(TokenError::Audience)),
            ("chat", serde_json::json!([]), Err(TokenError::Audience)),
            ("chat", serde_json::json!(5), Err(TokenError::Claims)),
        ] {
            assert_eq!(check(audience, serde_json::json!({"aud": aud})), taken, "{audience:?} {aud}");
        }
        assert_eq!(check("chat", serde_json::json!({})), Ok(()), "it says nothing of whom it is for");
    }

    #[test]
    fn a_token_of_another_type_or_with_what_is_critical_is_not_taken() {
        let keys = keys("one secret");
        let check = |header: Header| {
            let token = jsonwebtoken::encode(&header, &claims("alice", None), &keys.encoding).unwrap();
            keys.verify(&token, NOW).map(drop)
        };
        let plain = || Header::new(Algorithm::HS256);
        for (typ, taken) in [
            (None, Ok(())),
            (Some("JWT"), Ok(())),
            (Some("jwt"), Ok(())),
            (Some("at+JWT"), Ok(())),
            (Some("application/at+jwt"), Err(TokenError::Type)),
            (Some("logout+jwt"), Err(TokenError::Type)),
            (Some(""), Err(TokenError::Type)),
        ] {
            assert_eq!(check(Header { typ: typ.map(str::to_owned), ..plain() }), taken, "{typ:?}");
        }
        for crit in [vec![], vec!["exp".to_owned()]] {
            assert_eq!(check(Header { crit: Some(crit), ..plain() }), Err(TokenError::Critical));
        }
    }

    #[test]
    fn what_is_not_signed_by_this_key_is_not_taken() {
        let (ours, theirs) = (keys("one secret"), keys("another secret"));
        let token = theirs.mint(&claims("alice", None)).unwrap();
        assert_eq!(ours.verify(&token, NOW), Err(TokenError::Bad));
        let good = ours.mint(&claims("alice", None)).unwrap();
        let (head, signature) = good.rsplit_once('.').unwrap();
        // {"alg":"none"}
        let (_, payload) = head.split_once('.').unwrap();
        for bad in [
            String::new(),
            "a.b.c".to_owned(),
            format!("{head}."),
            format!("{head}.{}", signature.to_lowercase()),
            format!("eyJhbGciOiJub25lIn0.{payload}."),
            format!("eyJhbGciOiJub25lIn0.{payload}.{signature}"),
        ] {
            assert_eq!(ours.verify(&bad, NOW), Err(TokenError::Bad), "{bad}");
        }
    }

    #[test]
    fn a_name_of_another_kind_needs_its_kind() {
        let keys = keys("one secret");
        for (sub, kind, taken) in [
            ("alice", None, true),
            ("alice", Some(Kind::User), true),
            ("alice", Some(Kind::Integration), false),
            ("integration:import", None, false),
            ("integration:import", Some(Kind::Integration), true),
            ("persona:socrates", Some(Kind::Persona), true),
            ("system:jobs", None, false),
        ] {
            let token = keys.mint(&claims(sub, kind)).unwrap();
            assert_eq!(keys.verify(&token, NOW).is_ok(), taken, "{sub} {kind:?}");
        }
    }

    #[test]
    fn a_token_may_open_some_rooms_only() {
        let keys = keys("one secret");
        let [lobby, den] = ["lobby", "den"].map(|room| EntityId::parse(room).unwrap());
        let some = Claims { rooms: Some(vec![lobby.clone()]), ..claims("alice", None) };
        let pass = keys.verify(&keys.mint(&some).unwrap(), NOW).unwrap();
        assert!(pass.opens(&lobby) && !pass.opens(&den) && !pass.opens_all());
        let bob = MemberId::parse("bob").unwrap();
        for (rooms, own, of_others) in [
            (Some(vec!["lobby"]), false, false),
            (Some(vec!["lobby", "me"]), true, false),
            (None, true, true),
        ] {
            let rooms = rooms.map(|rooms| rooms.iter().map(|room| EntityId::parse(room).unwrap()).collect());
            let claims = Claims { rooms, ..claims("alice", None) };
            let pass = keys.verify(&keys.mint(&claims).unwrap(), NOW).unwrap();
            let opened = (pass.opens_own_of(&pass.user), pass.opens_own_of(&bob));
            assert_eq!((pass.opens_own(), opened), (own, (own, of_others)), "{pass:?}");
        }
    }

    #[test]
    fn passes_are_compared_by_what_they_open() {
        let pass = |rooms: Option<&[&str]>| Pass {
            user: MemberId::parse("alice").unwrap(),
            expires_at: NOW,
            rooms: rooms.map(|rooms| rooms.iter().map(|room| EntityId::parse(room).unwrap()).collect()),
        };
        let (all, none, a, b, both) =
            (pass(None), pass(Some(&[])), pass(Some(&["a"])), pass(Some(&["b"])), pass(Some(&["b", "a"])));
        for (wide, narrow, either) in
            [(&all, &both, &all), (&all, &none, &all), (&both, &a, &both), (&a, &none, &a)]
        {
            assert!(wide.opens_all_of(narrow) && !narrow.opens_all_of(wide), "{wide:?} {narrow:?}");
            assert!(wide.opens_all_of(wide) && narrow.opens_all_of(narrow), "{wide:?} {narrow:?}");
            for joined in [wide.clone().or(narrow.clone()), narrow.clone().or(wide.clone())] {
                assert_eq!(joined, *either);
            }
        }
        assert!(!a.opens_all_of(&b) && !b.opens_all_of(&a));
        let joined = a.clone().or(b.clone());
        assert!(joined.opens_all_of(&a) && joined.opens_all_of(&b), "{joined:?}");
    }

    #[test]
    fn a_client_reads_its_own_token_without_the_key() {
        let minted = keys("one secret").mint(&claims("integration:import", Some(Kind::Integration))).unwrap();
        let read = Claims::unverified(&minted).unwrap();
        assert_eq!((read.sub.to_string().as_str(), read.exp), ("integration:import", 1_000_000_060));
        for none in ["", "a.b.c", "e30.e30", "a.e30.c", &format!("{minted}.d")] {
            assert!(Claims::unverified(none).is_none(), "{none}");
        }
    }

    #[test]
    fn keys_do_not_show() {
        assert_eq!(format!("{:?}", keys("a secret")), "Keys(…)");
    }
}
