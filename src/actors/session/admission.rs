//! Who a client is and whether it may go on: its token, its pace, the rooms that are open to it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use dramatis_events::{CommandId, MemberId, UnixMillis};

use super::Session;
use crate::actors::directory::Entry;
use crate::actors::hub::{Follow, TokenTimes};
use crate::actors::meters::{SessionSeat, Taken, Toll};
use crate::auth::{Pass, TokenError};
use crate::clock::{Clock as _, SystemClock};
use crate::protocol::{
    Authenticate, AuthenticateBy, Authenticated, ClientMessage, CloseCode, CommandFrame, ErrorCode, Followed,
    HistoryRequest, ME, Reject, ServerMessage, Token, message_id,
};

/// The longest answer to a ping.
const PONG_BYTES_MAX: usize = 64;

/// The client's name, the session it named, and what it goes by.
pub(super) struct Identity {
    pub(super) user: MemberId,
    pub(super) session: CommandId,
    toll: Toll,
    /// What the connection has of what its user may have.
    seat: SessionSeat,
    /// `None` in local mode.
    pass: Option<Pass>,
    /// What comes of the token if it is not renewed.
    token_times: Option<TokenTimes>,
}

impl Identity {
    pub(super) fn new(
        user: MemberId,
        session: CommandId,
        toll: Toll,
        seat: SessionSeat,
        pass: Option<Pass>,
    ) -> Self {
        Self { user, session, toll, seat, pass, token_times: None }
    }

    /// Why the client's token does not let it say this.
    pub(super) fn objection(&self, message: &ClientMessage) -> Option<ErrorCode> {
        self.pass.as_ref().and_then(|pass| objection(pass, message))
    }
}

/// Why a client that has shown this token may not say this, by whichever transport.
pub(crate) fn objection(pass: &Pass, message: &ClientMessage) -> Option<ErrorCode> {
    let opens = match message {
        ClientMessage::Authenticate(_) | ClientMessage::Unsubscribe(_) | ClientMessage::Pong => return None,
        ClientMessage::Hello(_) => true,
        // The stream is that of whom an integration speaks for.
        ClientMessage::Command(CommandFrame { room, by: Some(by), .. }) if room.as_str() == ME => {
            pass.opens_own_of(by)
        }
        ClientMessage::Command(CommandFrame { room, .. })
        | ClientMessage::History(HistoryRequest { room, .. }) => pass.opens(room),
        ClientMessage::Ephemeral(ephemeral) => pass.opens(&ephemeral.room),
        ClientMessage::Seen(seen) => pass.opens(&seen.room),
        ClientMessage::Subscribe(subscribe) => opens(pass, &subscribe.room),
    };
    // By the clock and by no timer: those wait while a message waits for its answer.
    if pass.expires_at <= SystemClock.now() {
        return Some(ErrorCode::TokenExpired);
    }
    (!opens).then_some(ErrorCode::Forbidden)
}

/// The refusal of what a token does not let a client say.
pub(crate) fn objected(code: ErrorCode, id: Option<CommandId>) -> Reject {
    let message = match code {
        ErrorCode::TokenExpired => "the token has run out: send a fresh one by authenticate",
        _ => "the token does not open this room",
    };
    Reject::new(id, code, message)
}

/// Whether a client that has shown this token may follow there.
pub(super) fn opens(pass: &Pass, followed: &Followed) -> bool {
    followed.room().map_or_else(|| pass.opens_own(), |room| pass.opens(room))
}

/// From now to a time; none if it is past.
fn until(time: UnixMillis, now: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(time.get().saturating_sub(now.get())).unwrap_or(0))
}

impl Session {
    /// Who says hello: in local mode whom it names, else whom its token names.
    pub(super) fn identify(
        &self,
        user: Option<MemberId>,
        token: Option<&Token>,
    ) -> Result<(MemberId, Option<Pass>), CloseCode> {
        let Some(keys) = &self.stage.keys else {
            return user.filter(|_| token.is_none()).map(|user| (user, None)).ok_or(CloseCode::Malformed);
        };
        let verified =
            token.ok_or(TokenError::Missing).and_then(|t| keys.verify(t.secret(), SystemClock.now()));
        let pass = verified.map_err(|error| {
            // Anybody may send as many as their address may: they are counted, and fill no log.
            tracing::debug!(%error, "a hello without a good token");
            let code =
                if error == TokenError::Expired { ErrorCode::TokenExpired } else { ErrorCode::Forbidden };
            self.stage.metrics.message_refused(code.as_str());
            CloseCode::Token
        })?;
        if user.is_some_and(|user| user != pass.user) {
            return Err(CloseCode::Token);
        }
        Ok((pass.user.clone(), Some(pass)))
    }

    /// Enters the session in the directory and takes a connection of those that its user may have: that
    /// of its own earlier connection, if there is one. Else says why it cannot go on.
    pub(super) fn take_seat(&self, user: &MemberId, session: &CommandId) -> Result<SessionSeat, CloseCode> {
        let (stage, seat) = (&self.stage, SessionSeat::default());
        let connection = self.rooms.closer(self.connection);
        let earlier = match stage.directory.enter(user, session, self.arrival, connection, seat.clone()) {
            Entry::Taken(earlier) => earlier,
            Entry::TooLate => return Err(CloseCode::Replaced),
        };
        let Some(taken) = earlier.or_else(|| stage.meters.user(user).connect()) else {
            stage.directory.leave(user, session, self.arrival);
            return Err(CloseCode::TooManyConnections);
        };
        seat.fill(taken);
        Ok(seat)
    }

    /// When the client's token runs out.
    pub(super) fn token_expires_at(&self) -> Option<UnixMillis> {
        self.identity.as_ref()?.pass.as_ref().map(|pass| pass.expires_at)
    }

    /// Pays for a message; `true` if it is not to be taken.
    pub(super) fn is_too_fast(&mut self, text: &str) -> bool {
        // Who was asked whether they are there need not pay for saying so.
        let says_something = !text.trim_ascii().is_empty();
        if says_something && text.len() <= PONG_BYTES_MAX && self.outbox.take_pong_due() {
            return false;
        }
        let taken = match &mut self.identity {
            Some(identity) => identity.toll.take(text.len()),
            None => Taken::Yes,
        };
        match taken {
            Taken::Yes => return false,
            Taken::Abuse => {
                self.stage.metrics.message_refused(ErrorCode::RateLimited.as_str());
                self.outbox.close(CloseCode::RateLimited);
            }
            Taken::After(after) => match message_id(text) {
                Some(id) => self.too_fast(Some(id), after),
                // What has no id has no answer: such messages are best effort.
                None => self.stage.metrics.message_refused(ErrorCode::RateLimited.as_str()),
            },
        }
        true
    }

    /// Pays for a hello of so many bytes, of which only now is known whose it is.
    pub(super) fn pay_for_hello(&self, user: &MemberId, bytes: usize) -> Result<(), Duration> {
        let paid = if self.has_paid { Ok(()) } else { self.stage.meters.user(user).take_hello(bytes) };
        paid.and_then(|()| self.address.as_ref().map_or(Ok(()), |address| address.take(bytes)))
    }

    pub(super) fn too_fast(&self, id: Option<CommandId>, after: Duration) {
        let message = "too fast: send it again after after_ms, and not more than limits allow";
        self.send(&ServerMessage::Reject(Reject::new(id, ErrorCode::RateLimited, message).after(after)));
    }

    /// Takes one of the rooms that the user may follow.
    pub(super) fn take_room_place(&mut self) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.seat.take_room())
    }

    /// Keeps as many of them as rooms are followed.
    pub(super) fn give_back_places(&mut self) {
        if let Some(identity) = &self.identity {
            identity.seat.keep_rooms(self.follows.len());
        }
    }

    /// Has a fresh token asked for ahead of time, and the connection closed a while after the end of this one.
    pub(super) fn watch_token(&mut self) {
        self.forget_token();
        let Some(expires_at) = self.token_expires_at() else { return };
        let ahead = Duration::from_millis(self.stage.auth.refresh_ahead_ms);
        let grace = Duration::from_millis(self.stage.auth.expired_grace_ms);
        let left = until(expires_at, SystemClock.now());
        // A token that lives shorter than that is asked for once half of it is gone: else each fresh
        // one would be asked for at once, for ever.
        let asks_after = left.saturating_sub(ahead).max(left / 2);
        let ends_after = left.saturating_add(grace).saturating_sub(asks_after);
        let (Some(identity), Some(asks)) = (&mut self.identity, Instant::now().checked_add(asks_after))
        else {
            return;
        };
        let times =
            TokenTimes { asks, ends_after_ms: u32::try_from(ends_after.as_millis()).unwrap_or(u32::MAX) };
        identity.token_times = Some(times);
        self.rooms.watch_token(self.connection, times);
    }

    /// Nothing comes of the client's token any more.
    pub(super) fn forget_token(&mut self) {
        if let Some(times) = self.identity.as_mut().and_then(|identity| identity.token_times.take()) {
            self.rooms.forget_token(self.connection, times);
        }
    }

    /// Asks for a fresh token, if it is time for that; one that came meanwhile has put it off.
    pub(super) fn ask_for_token(&self) {
        let times = self.identity.as_ref().and_then(|identity| identity.token_times);
        if let Some(by) = self.token_expires_at()
            && times.is_some_and(|times| times.asks <= Instant::now())
        {
            self.send(&ServerMessage::Authenticate(AuthenticateBy { by }));
        }
    }

    /// Swaps the client's token for a fresh one of the same user.
    pub(super) fn authenticate(&mut self, Authenticate { id, token, .. }: Authenticate) {
        let (Some(keys), Some(identity)) = (&self.stage.keys, &mut self.identity) else {
            return self
                .malformed(Some(id), "this server has no key for tokens: there is none to renew".to_owned());
        };
        let follows = &self.follows;
        let follows_only = |pass: &Pass| opens_all(pass, follows);
        let refused = match keys.verify(token.secret(), SystemClock.now()) {
            Ok(pass) if pass.user != identity.user => "the token is another user's: connect anew for that",
            Ok(pass) if !follows_only(&pass) => {
                "the token does not open every room that is followed: unsubscribe from the others first"
            }
            Ok(pass) => {
                let token_expires_at = Some(pass.expires_at);
                identity.pass = Some(pass);
                self.send(&ServerMessage::Authenticated(Authenticated { id, token_expires_at }));
                return self.watch_token();
            }
            Err(error @ TokenError::Expired) => {
                return self.reject(Some(id), ErrorCode::TokenExpired, error.to_string());
            }
            Err(error) => return self.reject(Some(id), ErrorCode::Forbidden, error.to_string()),
        };
        self.reject(Some(id), ErrorCode::Forbidden, refused);
    }

    /// Goes on with a pass that a request of the session came with, if it is one of the same user and is
    /// good for longer. Nobody asked, so nobody is told.
    pub(super) fn renew(&mut self, pass: Pass) {
        let Some(identity) = &mut self.identity else { return };
        let is_longer = identity.pass.as_ref().is_some_and(|known| known.expires_at < pass.expires_at);
        if is_longer && pass.user == identity.user && opens_all(&pass, &self.follows) {
            identity.pass = Some(pass);
            self.watch_token();
        }
    }
}

/// Whether a pass opens everything that is followed.
fn opens_all(pass: &Pass, follows: &[Rc<Follow>]) -> bool {
    pass.opens_all() || follows.iter().all(|follow| opens(pass, &Followed::of(&follow.stream)))
}
