//! Scenario files: what is in them, what is wrong with them, and that the examples are sound.

use super::*;
use crate::flags::Head;

const HEAD: &str =
    "[server]\naddress = \"h:4433\"\n[users]\npattern = \"u-{n}\"\npassword = \"secret\"\n";
const CONNECT: &str = "[[phase]]\nkind = \"connect\"\nsessions = 3\nrate = \"2/s\"\n";

fn parse(text: &str) -> Result<Scenario, String> {
    Scenario::parse(text, PathBuf::from("/scenarios"))
}

fn head(text: &str, more: &[&str]) -> Result<Head, String> {
    let run = flags::Run {
        server: None,
        check: false,
        file: PathBuf::new(),
        flags: more.iter().map(OsString::from).collect(),
    };
    let arguments = parse(text)?.arguments(&run)?;
    Head::try_parse_from(arguments).map_err(|error| error.to_string())
}

#[test]
fn every_example_is_sound() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::read(&path).unwrap_or_else(|why| panic!("{path:?}: {why}"));
        let run = flags::Run {
            server: Some("127.0.0.1:443".parse().unwrap()),
            check: true,
            file: path.clone(),
            flags: vec!["--password=x".into(), "--user=y".into()],
        };
        let arguments = scenario.arguments(&run).unwrap();
        Head::try_parse_from(arguments).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        seen += 1;
    }
    assert!(seen >= 3);
}

#[test]
fn phases_follow_each_other_with_their_sessions() {
    let text = format!(
        "{HEAD}{CONNECT}\
         [[phase]]\nkind = \"ramp\"\nfrom = 0\nto = 10\ntime = \"2s\"\n\
         [[phase]]\nkind = \"hold\"\ntime = 1.5\n\
         [[phase]]\nkind = \"churn\"\ntime = \"1m\"\nrate = 0.5\nendings = {{ silent = 1 }}\nreturn-after = \"5s\"\n\
         [[phase]]\nkind = \"traffic\"\nbps = \"1M\"\nsize = 1250\ndirection = \"up\"\nfar-end = \"10.0.0.9:7100\"\n\
         [[phase]]\nkind = \"end\"\n"
    );
    let scenario = parse(&text).unwrap();
    assert_eq!(scenario.sessions, 13);
    let [start, ramp, hold, churn, traffic] = &scenario.phases[..] else {
        panic!("{:?}", scenario.phases)
    };
    assert!(matches!(start, Phase::Start(starts) if (starts.first, starts.count) == (0, 3)));
    assert!(matches!(ramp, Phase::Start(starts) if (starts.first, starts.count) == (3, 10)));
    assert_eq!(hold.time(), Duration::from_millis(1500));
    let Phase::Churn(churn) = churn else {
        panic!("{churn:?}")
    };
    assert_eq!(churn.endings, Weights([0, 0, 0, 1]));
    assert_eq!(churn.return_after, Some(Duration::from_secs(5)));
    assert_eq!(churn.silent_max(), 30);
    let Phase::Traffic(carry) = traffic else {
        panic!("{traffic:?}")
    };
    let plan = &carry.plan;
    assert_eq!(plan.load, Some(Load::Total(100.0)));
    assert_eq!(plan.direction, Direction::Up);
    insta::assert_snapshot!(scenario.summary(), @r"
    13 sessions
       1  connect 3 at 2/s
       2  ramp    10 at 0/s to 10/s in 2 s
       3  hold    1.5 s
       4  churn   60 s
       5  traffic 10 s
    ");
}

#[test]
fn mistakes_are_told_with_key_and_line() {
    for (text, word) in [
        (
            format!("{HEAD}{CONNECT}sped = 3\n"),
            "line 10: unknown field `sped`, expected one of",
        ),
        (format!("sed = 1\n{HEAD}"), "line 1: unknown field `sed`"),
        (
            format!("{HEAD}{CONNECT}time = 3\n"),
            "line 10: phase 1, connect: it has no key \"time\"; its keys are sessions, rate",
        ),
        (
            format!("{HEAD}[[phase]]\nkind = \"dance\"\n"),
            "line 7: unknown variant `dance`",
        ),
        (
            format!("{HEAD}[[phase]]\nkind = \"connect\"\nrate = 1\n"),
            "the key \"sessions\" is missing",
        ),
        (
            format!("{HEAD}[[phase]]\nkind = \"connect\"\nsessions = 1\nrate = \"2/m\"\n"),
            "line 9: \"2/m\": not a number",
        ),
        (
            format!("{HEAD}[[phase]]\nkind = \"connect\"\nsessions = 1\nrate = 0\n"),
            "line 9: phase 1, connect: the rate must be more than 0",
        ),
        (
            format!("{HEAD}[[phase]]\nkind = \"hold\"\ntime = 1\n"),
            "the first [[phase]] must be of kind connect or ramp",
        ),
        (
            format!("{HEAD}{CONNECT}[[phase]]\nkind = \"end\"\n{CONNECT}"),
            "line 12: phase 3, connect: nothing can follow the end",
        ),
        (
            format!("{HEAD}{CONNECT}[[phase]]\nkind = \"traffic\"\npps = 1\nbps = 1\n"),
            "one of pps, pps-per-session",
        ),
        (
            format!(
                "{HEAD}{CONNECT}[[phase]]\nkind = \"churn\"\ntime = 1\nrate = 1\nendings = {{ loud = 1 }}\n"
            ),
            "line 14: unknown field `loud`",
        ),
        (
            format!("{HEAD}[personas]\nwindows-95 = 1\n{CONNECT}"),
            "line 6: [personas]: there is no persona \"windows-95\"",
        ),
        (
            "[server]\naddress = \"h:\"\n".to_owned(),
            "line 2: \"h:\": \"\" is no port",
        ),
        ("[users\n".to_owned(), "line 1: "),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(word), "{text}\n{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let error = parse("[users]\npassword = 12345\n").unwrap_err();
    assert_eq!(error, "line 2: a password is a text in quotes");
}

#[test]
fn the_head_is_the_flags_it_stands_for() {
    let text = format!(
        "seed = 9\nfail = [\"loss<1%\"]\n[server]\naddress = \"vpn.example\"\nname = \"demo\"\nca = \"ca.pem\"\n\
         [users]\nfile = \"users.csv\"\n[personas]\nsstpc = 2\nrouteros = 1\n\
         [clients]\ntimeout = \"5s\"\nlcp-echo = 0\nmethod = [\"pap\", \"eap\"]\nsources = \"127.0.1.0/24\"\ndhcp = true\n{CONNECT}"
    );
    let fleet = head(&text, &[]).unwrap().fleet;
    assert_eq!((fleet.sessions, fleet.seed, fleet.dhcp), (3, 9, true));
    assert_eq!(
        (fleet.server.host.as_str(), fleet.server.port),
        ("vpn.example", 443)
    );
    assert_eq!(
        fleet.users.as_deref(),
        Some(Path::new("/scenarios/users.csv"))
    );
    assert_eq!(
        fleet.access.ca.as_deref(),
        Some(Path::new("/scenarios/ca.pem"))
    );
    assert_eq!(fleet.access.timeout, Duration::from_secs(5));
    assert_eq!(fleet.lcp_echo, Some(Duration::ZERO));
    assert_eq!(
        fleet.access.method,
        [flags::Method::Pap, flags::Method::Eap]
    );
    assert_eq!(fleet.access.persona.personas().count(), 2);
    assert_eq!((fleet.sources.0.len(), fleet.fail.len()), (254, 1));
    assert!(fleet.access.password.password.is_none());

    // The command line wins.
    let more = [
        "--user",
        "demo",
        "--password",
        "p",
        "--seed",
        "4",
        "--ca=/else.pem",
        "--fail",
        "failed<1",
    ];
    let fleet = head(&text, &more).unwrap().fleet;
    assert_eq!((fleet.user.as_deref(), fleet.seed), (Some("demo"), 4));
    assert!(fleet.users.is_none() && fleet.fail.len() == 2);
    assert_eq!(fleet.access.ca.as_deref(), Some(Path::new("/else.pem")));

    let error = head(&text, &["-N", "5"]).unwrap_err();
    assert!(error.contains("what the phases say"), "{error}");
    let no_server = format!("[users]\npattern = \"u\"\npassword = \"p\"\n{CONNECT}");
    assert!(head(&no_server, &[]).unwrap_err().contains("no --server"));
}
