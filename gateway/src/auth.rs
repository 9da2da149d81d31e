//! Checks credentials against the users file.
//!
//! A stranger must not learn who is a user: an unknown name goes the same way as a known one, with
//! hashes that nobody has, and gets the same answer after the same work.
//!
//! | method | users with an NT hash | users with Argon2 | makes a key |
//! |---|---|---|---|
//! | MS-CHAPv2, EAP-MSCHAPv2 | yes | no | yes |
//! | PAP | yes | yes | no |
//! | CHAP-MD5 | no: it needs the password itself (RFC 1994 §4.1) | no | no |

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datapath::crypto::hlak::Hlak;
use datapath::crypto::mschapv2::{strip_domain, verify_nt_response};
use datapath::crypto::nt_hash::{NtHash, nt_password_hash};
use datapath::output::Entropy as _;
use datapath::ppp::auth::{Credentials, ERROR_AUTHENTICATION_FAILURE, Verdict, eap_mschapv2};
use datapath::session::policy::Refusal;
use datapath::shard::SessionId;
use datapath::sys::entropy::SystemEntropy;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::users::{Secret, User, Users, argon2_hash, argon2_verify};

/// RFC 2759 §6.
const ERROR_ACCOUNT_DISABLED: u16 = 647;

/// What the users file says to some credentials.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is this user.
    Accepted {
        user: Arc<User>,
        hlak: Hlak,
        message: Vec<u8>,
    },
    /// It is nobody who may come in.
    Rejected(Rejection),
    /// EAP goes on.
    Continue { request: Vec<u8> },
}

/// A refusal, for the client and for our log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) error: u16,
    pub(crate) message: Vec<u8>,
    pub(crate) eap: Option<Vec<u8>>,
    pub(crate) refusal: Refusal,
}

impl Rejection {
    fn credentials() -> Self {
        Self {
            error: ERROR_AUTHENTICATION_FAILURE,
            message: b"Authentication failed".to_vec(),
            eap: None,
            refusal: Refusal::Credentials,
        }
    }
}

/// The users file at work.
pub(crate) struct Authority {
    users: Arc<Users>,
    /// Sessions in the middle of EAP-MSCHAPv2.
    eap: HashMap<SessionId, eap_mschapv2::Authenticator>,
    decoy: NtHash,
    /// Of a password nobody has; only if somebody's is kept as Argon2.
    decoy_argon2: Option<Secret>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("users", &self.users.iter().count())
            .field("eap", &self.eap.len())
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Judges by `users`.
    pub(crate) fn new(users: Arc<Users>) -> Self {
        let mut random = Zeroizing::new([0; 16]);
        SystemEntropy.fill(random.as_mut_slice());
        Self {
            decoy_argon2: users
                .any_argon2()
                .then(|| argon2_hash(random.as_slice()).ok())
                .flatten(),
            decoy: NtHash::from_bytes(*random),
            users,
            eap: HashMap::new(),
        }
    }

    /// Judges what the peer of `session` sent.
    pub(crate) fn judge(&mut self, session: SessionId, credentials: &Credentials) -> Outcome {
        match credentials {
            Credentials::Pap { user, password } => self.pap(user, password),
            Credentials::MsChapV2 {
                user,
                challenge,
                peer_challenge,
                nt_response,
                ..
            } => self.mschapv2(user, challenge, peer_challenge, nt_response),
            Credentials::Eap { identity, response } => self.eap(session, identity, response),
            // Never offered (the configuration refuses it), and not possible with hashes.
            Credentials::ChapMd5 { .. } => Outcome::Rejected(Rejection::credentials()),
        }
    }

    /// Forgets what was begun with `session`.
    pub(crate) fn forget(&mut self, session: SessionId) {
        self.eap.remove(&session);
    }

    /// The user of this name, or of this name without its domain.
    fn find(&self, name: &[u8]) -> Option<Arc<User>> {
        self.users
            .named(name)
            .or_else(|| self.users.named(strip_domain(name)))
            .cloned()
    }

    /// What MS-CHAPv2 is checked with: the user's hash, or one that nothing answers to.
    fn nt_hash(&self, user: Option<&User>) -> NtHash {
        match user.map(|user| &user.secret) {
            Some(Secret::NtHash(hash)) => hash.clone(),
            _ => self.decoy.clone(),
        }
    }

    fn pap(&self, name: &[u8], password: &[u8]) -> Outcome {
        let user = self.find(name);
        // A password is bytes here and characters in the hash; what is not UTF-8 is Latin-1.
        let text = Zeroizing::new(match str::from_utf8(password) {
            Ok(text) => text.to_owned(),
            Err(_) => password.iter().map(|&byte| char::from(byte)).collect(),
        });
        let hash = nt_password_hash(&text);
        let is_nt = hash
            .as_bytes()
            .ct_eq(self.nt_hash(user.as_deref()).as_bytes());
        let own = user.as_deref().map(|user| &user.secret);
        let (argon2, own_argon2) = match (own, &self.decoy_argon2) {
            (Some(Secret::Argon2(argon2)), _) => (Some(argon2), true),
            (_, Some(Secret::Argon2(argon2))) => (Some(argon2), false),
            _ => (None, false),
        };
        let is_argon2 = argon2.is_some_and(|argon2| argon2_verify(password, argon2)) && own_argon2;
        match user {
            Some(user) if bool::from(is_nt) || is_argon2 => admit(user, Hlak::ZERO, Vec::new()),
            _ => Outcome::Rejected(Rejection::credentials()),
        }
    }

    fn mschapv2(
        &self,
        name: &[u8],
        challenge: &[u8; 16],
        peer_challenge: &[u8; 16],
        nt_response: &[u8; 24],
    ) -> Outcome {
        let user = self.find(name);
        let hash = self.nt_hash(user.as_deref());
        let verified = verify_nt_response(challenge, peer_challenge, name, &hash, nt_response);
        match (user, verified) {
            (Some(user), Some(verified)) => admit(
                user,
                verified.hlak,
                verified.authenticator_response.to_vec(),
            ),
            _ => Outcome::Rejected(Rejection::credentials()),
        }
    }

    fn eap(&mut self, session: SessionId, identity: &[u8], response: &[u8]) -> Outcome {
        let user = self.find(identity);
        let hash = self.nt_hash(user.as_deref());
        let machine = self
            .eap
            .entry(session)
            .or_insert_with(|| eap_mschapv2::Authenticator::new(identity, &mut SystemEntropy));
        let verdict = machine.handle_response(response, Some(&hash));
        if !matches!(verdict, Verdict::Continue { .. }) {
            self.eap.remove(&session);
        }
        match (verdict, user) {
            (Verdict::Continue { request }, _) => Outcome::Continue { request },
            (Verdict::Accept { hlak, message }, Some(user)) => admit(user, hlak, message),
            (
                Verdict::Reject {
                    error,
                    message,
                    eap,
                },
                _,
            ) => Outcome::Rejected(Rejection {
                error,
                message,
                eap,
                refusal: Refusal::Credentials,
            }),
            (Verdict::Accept { .. }, None) => Outcome::Rejected(Rejection::credentials()),
        }
    }
}

/// Lets a user in who has proved it, unless the account is disabled. Only who knows the password
/// learns that.
fn admit(user: Arc<User>, hlak: Hlak, message: Vec<u8>) -> Outcome {
    if user.disabled {
        return Outcome::Rejected(Rejection {
            error: ERROR_ACCOUNT_DISABLED,
            message: b"Account disabled".to_vec(),
            eap: None,
            refusal: Refusal::Account,
        });
    }
    Outcome::Accepted {
        user,
        hlak,
        message,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use datapath::crypto::mschapv2;
    use datapath::io::ConnectionId;
    use hex_literal::hex;

    use super::*;

    // RFC 2759 §9.2: user "User", password "clientPass".
    const CHALLENGE: [u8; 16] = hex!("5b5d7c7d7b3f2f3e3c2c602132262628");
    const PEER_CHALLENGE: [u8; 16] = hex!("21402324255e262a28295f2b3a337c7e");
    const NT_RESPONSE: [u8; 24] = hex!("82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df");
    const SUCCESS: &[u8] = b"S=407A5589115FD0D6209F510FE9C04566932CDA56";
    // RFC 3079 §3.5.3, as MS-SSTP §3.2.5.2 joins the keys.
    const HLAK: [u8; 32] = hex!(
        "d5f0e9521e3ea9589645e86051c82226"
        "8b7cdc149b993a1ba118cb153f56dccb"
    );

    fn session(slot: u32) -> SessionId {
        SessionId {
            shard: 0,
            connection: ConnectionId {
                slot,
                generation: 0,
            },
        }
    }

    fn authority() -> Authority {
        let Secret::Argon2(argon2) = argon2_hash("p\u{e4}ss".as_bytes()).unwrap() else {
            panic!("not Argon2")
        };
        let text = format!(
            "[[user]]\nname = \"User\"\nnt_hash = \"44ebba8d5312b8d611474411f56989ae\"\n\
             [[user]]\nname = \"gone\"\nnt_hash = \"44ebba8d5312b8d611474411f56989ae\"\ndisabled = true\n\
             [[user]]\nname = \"pap\"\nargon2 = \"{}\"\n",
            argon2.as_str()
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        crate::files::replace(Path::new(&path), text.as_bytes(), 0o600).unwrap();
        let (users, report) = Users::load(&path).unwrap();
        assert!(!report.has_errors(), "{report}");
        Authority::new(Arc::new(users))
    }

    fn mschapv2(user: &[u8], nt_response: [u8; 24]) -> Credentials {
        Credentials::MsChapV2 {
            user: user.to_vec(),
            identifier: 1,
            challenge: CHALLENGE,
            peer_challenge: PEER_CHALLENGE,
            nt_response,
        }
    }

    fn pap(user: &str, password: &[u8]) -> Credentials {
        Credentials::Pap {
            user: user.as_bytes().to_vec(),
            password: Zeroizing::new(password.to_vec()),
        }
    }

    fn rejection(outcome: Outcome) -> Rejection {
        match outcome {
            Outcome::Rejected(rejection) => rejection,
            outcome => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn vectors_of_rfc_2759_and_rfc_3079() {
        let mut authority = authority();
        for name in [&b"User"[..], b"DOMAIN\\User"] {
            match authority.judge(session(0), &mschapv2(name, NT_RESPONSE)) {
                Outcome::Accepted {
                    user,
                    hlak,
                    message,
                } => {
                    assert_eq!(user.name, "User");
                    assert_eq!(message, SUCCESS);
                    assert_eq!(hlak.as_bytes(), &HLAK);
                }
                outcome => panic!("{outcome:?}"),
            }
        }
    }

    #[test]
    fn strangers_and_wrong_passwords_get_the_same_answer() {
        let mut authority = authority();
        let mut wrong = NT_RESPONSE;
        wrong[23] ^= 1;
        let answers = [
            mschapv2(b"User", wrong),
            mschapv2(b"nobody", NT_RESPONSE),
            mschapv2(b"", NT_RESPONSE),
            mschapv2(b"\xff\0\n", NT_RESPONSE),
            // The right answer for another's name, and a user who has no NT hash.
            mschapv2(b"gone", wrong),
            mschapv2(b"pap", NT_RESPONSE),
            pap("User", b"clientpass"),
            pap("pap", b"pass"),
            pap("nobody", b"clientPass"),
            pap("User", b""),
            Credentials::ChapMd5 {
                user: b"User".to_vec(),
                identifier: 1,
                challenge: CHALLENGE,
                response: [0; 16],
            },
        ];
        for credentials in answers {
            let rejection = rejection(authority.judge(session(0), &credentials));
            assert_eq!(rejection, Rejection::credentials());
            assert_eq!(rejection.error, 691);
        }
    }

    #[test]
    fn pap_is_checked_against_either_hash_and_makes_no_key() {
        let mut authority = authority();
        for credentials in [
            pap("User", b"clientPass"),
            pap("DOMAIN\\User", b"clientPass"),
            pap("pap", "p\u{e4}ss".as_bytes()),
        ] {
            match authority.judge(session(0), &credentials) {
                Outcome::Accepted { hlak, .. } => assert!(hlak.is_zero()),
                outcome => panic!("{outcome:?}"),
            }
        }
    }

    #[test]
    fn a_disabled_account_is_told_only_to_who_knows_its_password() {
        let mut authority = authority();
        let response = |password: &str| {
            let hash = nt_password_hash(password);
            mschapv2::nt_response(&CHALLENGE, &PEER_CHALLENGE, b"gone", &hash)
        };
        let right = authority.judge(session(0), &mschapv2(b"gone", response("clientPass")));
        let right = rejection(right);
        assert_eq!((right.error, right.refusal), (647, Refusal::Account));
        let wrong = authority.judge(session(0), &mschapv2(b"gone", response("other")));
        assert_eq!(rejection(wrong).error, 691);
    }

    /// An EAP Response: identifier, type, data.
    fn eap(identity: &[u8], identifier: u8, body: &[u8]) -> Credentials {
        let len = u16::try_from(4 + body.len()).unwrap().to_be_bytes();
        let mut response = vec![2, identifier, len[0], len[1]];
        response.extend_from_slice(body);
        Credentials::Eap {
            identity: identity.to_vec(),
            response,
        }
    }

    /// Plays EAP-MSCHAPv2 from the peer's side with this password.
    fn play_eap(
        authority: &mut Authority,
        session: SessionId,
        name: &[u8],
        password: &str,
    ) -> Outcome {
        let identity = eap(name, 7, &[&[1], name].concat());
        let Outcome::Continue { request } = authority.judge(session, &identity) else {
            panic!("no challenge")
        };
        // code, identifier, length, type 26, opcode 1, id, length, value size 16, challenge, name
        let challenge: [u8; 16] = request[10..26].try_into().unwrap();
        let hash = nt_password_hash(password);
        let nt = mschapv2::nt_response(&challenge, &PEER_CHALLENGE, name, &hash);
        let value = [&PEER_CHALLENGE[..], &[0; 8], &nt, &[0]].concat();
        let len = u16::try_from(5 + value.len() + name.len())
            .unwrap()
            .to_be_bytes();
        let body = [&[26, 2, request[6], len[0], len[1], 49][..], &value, name].concat();
        let answer = authority.judge(session, &eap(name, request[1], &body));
        let Outcome::Continue { request } = answer else {
            return answer;
        };
        // Success or failure: one byte says that we have seen it.
        authority.judge(session, &eap(name, request[1], &[26, request[5]]))
    }

    #[test]
    fn eap_mschapv2_is_ended_here_a_state_a_session() {
        let mut authority = authority();
        match play_eap(&mut authority, session(0), b"User", "clientPass") {
            Outcome::Accepted { user, hlak, .. } => {
                assert_eq!(user.name, "User");
                assert!(!hlak.is_zero());
            }
            outcome => panic!("{outcome:?}"),
        }
        for (name, password) in [
            (&b"User"[..], "wrong"),
            (b"nobody", "clientPass"),
            (b"pap", "p\u{e4}ss"),
        ] {
            let outcome = play_eap(&mut authority, session(1), name, password);
            assert_eq!(rejection(outcome).refusal, Refusal::Credentials);
        }
        assert!(
            authority.eap.is_empty(),
            "a finished exchange leaves nothing"
        );
        let identity = eap(b"User", 1, b"\x01User");
        assert!(matches!(
            authority.judge(session(2), &identity),
            Outcome::Continue { .. }
        ));
        authority.forget(session(2));
        assert!(authority.eap.is_empty());
    }

    #[test]
    fn success_cannot_be_claimed_before_it_is_earned() {
        let mut authority = authority();
        let identity = eap(b"User", 1, b"\x01User");
        let Outcome::Continue { request } = authority.judge(session(0), &identity) else {
            panic!("no challenge")
        };
        let early = eap(b"User", request[1], &[26, 3]);
        // The method's own failure, which the peer may acknowledge; claiming again ends it.
        let Outcome::Continue { request } = authority.judge(session(0), &early) else {
            panic!("not a failure request")
        };
        assert_eq!(request[5], 4);
        let again = eap(b"User", request[1], &[26, 3]);
        let rejection = rejection(authority.judge(session(0), &again));
        assert_eq!(rejection.refusal, Refusal::Credentials);
    }
}
