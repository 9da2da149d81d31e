//! What LCP negotiates: receive unit, authentication, magic number (RFC 1661 §6).
//!
//! | option | of the peer, we | of ours |
//! |---|---|---|
//! | 1 MRU | take from 576 (1280 with IPv6), else Nak with 1500 | sent |
//! | 2 ACCM, 7 PFC, 8 ACFC | take: without effect, we send neither | only to imitate |
//! | 3 Authentication-Protocol | authenticator: Reject; authenticatee: take or Nak | authenticator: sent |
//! | 5 Magic-Number | take, Nak zero and our own | sent |
//! | any other (callback, multilink, quality, …) | Reject | only to imitate |
//!
//! Echo, Protocol-Reject and Identification are packets without negotiation: the link handles them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::sync::Arc;

use crate::output::Entropy;
use crate::ppp::auth::AuthMethod;
use crate::ppp::config::{AuthenticateeConfig, AuthenticatorConfig, Persona, Times};
use crate::ppp::control::{Opt, Options, put_option};
use crate::ppp::frame;
use crate::ppp::link::Timer;
use crate::ppp::negotiation::{Faults, Judgement, Terms};
use crate::time::Duration;
use crate::wire::{TooShort, Writer};

// Specification: RFC 1661 §6, RFC 1662 §7.1, RFC 1570 §2.3.

const MRU: u8 = 1;
const ACCM: u8 = 2;
const AUTHENTICATION: u8 = 3;
const MAGIC: u8 = 5;
const PFC: u8 = 7;
const ACFC: u8 = 8;
const CALLBACK: u8 = 13;

// Implementation.

const MRU_MIN_IPV4: u16 = 576;
const MRU_MIN_IPV6: u16 = 1280;
/// Below this a peer's wish for our MRU is not followed: no PPP there is asks for less.
const MRU_NAK_MIN: u16 = 128;
/// Windows' own figure: the SSTP payload, four bytes more than fits.
const MRU_WINDOWS: u16 = 4091;
/// CBCP, as Windows always asks.
const CALLBACK_CBCP: [u8; 1] = [6];
/// Requests in a row with our own magic number until the link counts as looped; pppd's figure.
const COLLISIONS_MAX: u8 = 10;

/// Which end of the authentication this is, with what its owner decided.
#[derive(Clone, Debug)]
pub(super) enum Role {
    /// Demands authentication.
    Authenticator(Arc<AuthenticatorConfig>),
    /// Proves who it is.
    Authenticatee(Arc<AuthenticateeConfig>),
}

impl Role {
    pub(super) fn times(&self) -> &Times {
        match self {
            Self::Authenticator(config) => &config.times,
            Self::Authenticatee(config) => &config.times,
        }
    }

    pub(super) fn echo_interval(&self) -> Option<Duration> {
        match self {
            Self::Authenticator(config) => config.lcp_echo_interval,
            Self::Authenticatee(config) => config.lcp_echo_interval,
        }
    }

    fn ipv6(&self) -> bool {
        match self {
            Self::Authenticator(config) => config.ipv6,
            Self::Authenticatee(config) => config.ipv6,
        }
    }

    fn persona(&self) -> Option<Persona> {
        match self {
            Self::Authenticator(_) => None,
            Self::Authenticatee(config) => Some(config.persona),
        }
    }
}

/// LCP's terms.
#[derive(Debug)]
pub(super) struct Lcp {
    pub(super) role: Role,
    asks_mru: Option<u16>,
    /// Authenticator: what is asked now, and what was asked before.
    asks_auth: Option<AuthMethod>,
    tried: Vec<AuthMethod>,
    asks_magic: bool,
    asks_accm: bool,
    asks_compression: [bool; 2],
    asks_callback: bool,
    magic: u32,
    pub(super) peer_mru: u16,
    pub(super) peer_magic: u32,
    /// Authenticatee: what the peer wants us to do.
    peer_auth: Option<AuthMethod>,
    collisions: u8,
    auth_refused: bool,
}

impl Lcp {
    pub(super) fn new(role: Role, entropy: &mut impl Entropy) -> Self {
        let persona = role.persona();
        let imitates = |who: &[Persona]| persona.is_some_and(|persona| who.contains(&persona));
        let (mru, asks_auth) = match &role {
            Role::Authenticator(config) => (config.mru, config.methods.first().copied()),
            Role::Authenticatee(config) => (config.mru, None),
        };
        let asks_mru = match persona {
            Some(Persona::Windows) => Some(MRU_WINDOWS),
            Some(Persona::Pppd) if mru == frame::MRU_DEFAULT => None,
            _ => Some(mru),
        };
        let compresses = imitates(&[Persona::Windows, Persona::Pppd]);
        Self {
            asks_mru,
            asks_auth,
            tried: Vec::new(),
            asks_magic: !imitates(&[Persona::OpenSstp]),
            asks_accm: imitates(&[Persona::Pppd]),
            asks_compression: [compresses; 2],
            asks_callback: imitates(&[Persona::Windows]),
            magic: fresh_magic(entropy, 0),
            peer_mru: frame::MRU_DEFAULT,
            peer_magic: 0,
            peer_auth: None,
            collisions: 0,
            auth_refused: matches!(&role, Role::Authenticator(config) if config.methods.is_empty()),
            role,
        }
    }

    /// Takes up what was negotiated before.
    pub(super) fn restore(&mut self, magic: u32, peer_magic: u32, peer_mru: u16) {
        self.asks_magic = magic != 0;
        if magic != 0 {
            self.magic = magic;
        }
        self.peer_magic = peer_magic;
        self.peer_mru = peer_mru;
    }

    /// Our magic number; zero if the peer would not have one (RFC 1661 §6.4).
    pub(super) const fn magic(&self) -> u32 {
        if self.asks_magic { self.magic } else { 0 }
    }

    /// The method agreed on, whichever end asked for it.
    pub(super) const fn auth_method(&self) -> Option<AuthMethod> {
        match &self.role {
            Role::Authenticator(_) => self.asks_auth,
            Role::Authenticatee(_) => self.peer_auth,
        }
    }

    pub(super) const fn set_auth_method(&mut self, method: AuthMethod) {
        self.asks_auth = Some(method);
    }

    /// No method is left that both ends would use.
    pub(super) const fn is_auth_refused(&self) -> bool {
        self.auth_refused
    }

    /// We are talking to ourselves.
    pub(super) const fn is_looped(&self) -> bool {
        self.collisions >= COLLISIONS_MAX
    }

    fn judge_option(
        &self,
        option: &Opt<'_>,
        faults: &mut Faults,
        entropy: &mut impl Entropy,
        peer: &mut PeerTerms,
    ) {
        let persona = self.role.persona();
        match (option.kind, option.value) {
            (MRU, &[high, low]) => {
                let mru = u16::from_be_bytes([high, low]);
                let min = match (persona, self.role.ipv6()) {
                    (Some(Persona::OpenSstp), _) => frame::MRU_DEFAULT,
                    (_, true) => MRU_MIN_IPV6,
                    (_, false) => MRU_MIN_IPV4,
                };
                if mru < min {
                    faults.nak(option, &frame::MRU_DEFAULT.to_be_bytes());
                }
                peer.mru = mru;
            }
            (AUTHENTICATION, value) => match &self.role {
                Role::Authenticator(_) => faults.reject(option),
                Role::Authenticatee(config) => {
                    let method = AuthMethod::from_option_value(value)
                        .filter(|method| config.methods.contains(method));
                    peer.auth = method;
                    match (method, config.methods.first()) {
                        (Some(_), _) => {}
                        (None, Some(favourite)) => faults.nak(option, favourite.option_value()),
                        (None, None) => faults.reject(option),
                    }
                    peer.asked_auth = true;
                }
            },
            _ if persona == Some(Persona::OpenSstp) => faults.reject(option),
            (MAGIC, &[a, b, c, d]) => {
                peer.magic = u32::from_be_bytes([a, b, c, d]);
                if peer.magic == 0 {
                    let suggestion = fresh_magic(entropy, self.magic);
                    faults.nak(option, &suggestion.to_be_bytes());
                }
            }
            (ACCM, [_, _, _, _]) | (PFC | ACFC, []) => {}
            _ => faults.reject(option),
        }
    }

    /// Offers `wish` if it is on our list and untried, else the next that is untried.
    fn offer_other(&mut self, wish: Option<AuthMethod>) {
        let Role::Authenticator(config) = &self.role else {
            return;
        };
        self.tried.extend(self.asks_auth);
        let is_open =
            |method: &AuthMethod| config.methods.contains(method) && !self.tried.contains(method);
        let next = wish
            .filter(is_open)
            .or_else(|| config.methods.iter().copied().find(is_open));
        match next {
            Some(method) => self.asks_auth = Some(method),
            None => self.auth_refused = true,
        }
    }
}

/// What a request of the peer would establish.
#[derive(Debug)]
struct PeerTerms {
    mru: u16,
    magic: u32,
    auth: Option<AuthMethod>,
    asked_auth: bool,
}

impl Terms for Lcp {
    const PROTOCOL: u16 = frame::LCP;
    const RESTART: Timer = Timer::LcpRestart;

    fn write_request(&self, to: &mut Writer<'_>) -> Result<(), TooShort> {
        if let Some(mru) = self.asks_mru {
            put_option(to, MRU, &mru.to_be_bytes())?;
        }
        if self.asks_accm {
            put_option(to, ACCM, &[0; 4])?;
        }
        if let Some(method) = self.asks_auth {
            put_option(to, AUTHENTICATION, method.option_value())?;
        }
        if self.asks_magic {
            put_option(to, MAGIC, &self.magic.to_be_bytes())?;
        }
        for (kind, asks) in [PFC, ACFC].into_iter().zip(self.asks_compression) {
            if asks {
                put_option(to, kind, &[])?;
            }
        }
        if self.asks_callback {
            put_option(to, CALLBACK, &CALLBACK_CBCP)?;
        }
        Ok(())
    }

    fn judge(
        &mut self,
        request: Options<'_>,
        naks_spent: bool,
        entropy: &mut impl Entropy,
    ) -> Judgement {
        let mut faults = Faults::new(naks_spent);
        // RFC 1661 §6.4: our own number in the peer's request is looked at before all else, and is
        // never turned into a Reject: without the option a loop could not be told any more.
        let own = self.magic.to_be_bytes();
        if request
            .into_iter()
            .any(|option| option.kind == MAGIC && option.value == own)
        {
            self.collisions = self.collisions.saturating_add(1);
            let suggestion = fresh_magic(entropy, self.magic);
            faults.append(MAGIC, &suggestion.to_be_bytes());
            return faults.judgement();
        }
        self.collisions = 0;
        let mut peer = PeerTerms {
            mru: frame::MRU_DEFAULT,
            magic: 0,
            auth: None,
            asked_auth: false,
        };
        for option in request {
            self.judge_option(&option, &mut faults, entropy, &mut peer);
        }
        if let Role::Authenticatee(config) = &self.role
            && !peer.asked_auth
            && !config.allow_unauthenticated
        {
            match config.methods.first() {
                Some(favourite) if !naks_spent => {
                    faults.append(AUTHENTICATION, favourite.option_value());
                }
                _ => self.auth_refused = true,
            }
        }
        let judgement = faults.judgement();
        if judgement == Judgement::Ack {
            self.peer_mru = peer.mru;
            self.peer_magic = peer.magic;
            self.peer_auth = peer.auth;
        }
        judgement
    }

    fn handle_nak(&mut self, options: Options<'_>, entropy: &mut impl Entropy) {
        // A Nak that names only the MRU says that the method would do; one that names nothing says
        // that something will not, and the method is all we insist on.
        let mut wish = None;
        let mut names_nothing = true;
        for option in options {
            names_nothing = false;
            match (option.kind, option.value) {
                (MRU, &[high, low]) if self.asks_mru.is_some() => {
                    let mru = u16::from_be_bytes([high, low]);
                    if mru >= MRU_NAK_MIN {
                        self.asks_mru = Some(mru.min(frame::INFORMATION_LEN_MAX));
                    }
                }
                (AUTHENTICATION, value) => {
                    wish = Some(AuthMethod::from_option_value(value));
                }
                (MAGIC, _) => self.magic = fresh_magic(entropy, self.magic),
                (ACCM, _) => self.asks_accm = false,
                (CALLBACK, _) => self.asks_callback = false,
                _ => {}
            }
        }
        if let Some(wish) = wish {
            self.offer_other(wish);
        } else if names_nothing {
            self.offer_other(None);
        }
    }

    fn handle_reject(&mut self, options: Options<'_>) {
        for option in options {
            match option.kind {
                MRU => self.asks_mru = None,
                ACCM => self.asks_accm = false,
                // The peer refuses to authenticate itself.
                AUTHENTICATION if self.asks_auth.is_some() => self.auth_refused = true,
                MAGIC => self.asks_magic = false,
                PFC | ACFC => {
                    for (kind, asks) in [PFC, ACFC].into_iter().zip(&mut self.asks_compression) {
                        *asks &= kind != option.kind;
                    }
                }
                CALLBACK => self.asks_callback = false,
                _ => {}
            }
        }
    }

    fn is_hopeless(&self) -> bool {
        self.auth_refused || self.is_looped()
    }
}

/// A number that is neither zero nor `other`.
fn fresh_magic(entropy: &mut impl Entropy, other: u32) -> u32 {
    let magic = u32::from_be_bytes(entropy.array());
    if magic == 0 || magic == other {
        // Two neighbours cannot both be taken.
        other.wrapping_add(1).max(1)
    } else {
        magic
    }
}
