//! `EXAMPLES.md` keeps to the command line that there is: each of its commands is parsed.

use clap::{CommandFactory as _, Parser as _};

use crate::flags::Flags;

const EXAMPLES: &str = include_str!("../EXAMPLES.md");

/// The commands in its blocks of shell, as the shell would split them, without redirections.
fn commands() -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let mut is_shell = false;
    let mut line = String::new();
    for text in EXAMPLES.lines() {
        if let Some(kind) = text.strip_prefix("```") {
            is_shell = kind == "sh";
        } else if is_shell {
            match text.strip_suffix('\\') {
                Some(text) => line += text,
                None => commands.push(split(&(std::mem::take(&mut line) + text))),
            }
        }
    }
    commands
}

/// Words with single quotes, up to a redirection.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    let end = words.iter().position(|word| word == "<" || word == ">");
    words.truncate(end.unwrap_or(words.len()));
    words
}

/// Whether this build has the command, and all the flags of it that are named.
fn is_known(words: &[String]) -> bool {
    let root = Flags::command();
    let Some(command) = words.get(1).and_then(|name| root.find_subcommand(name)) else {
        return false;
    };
    // These come with the search for a rate; until then the page is ahead of the command line.
    let has = |flag: &str| {
        command
            .get_arguments()
            .any(|argument| argument.get_long() == Some(flag))
    };
    !words.iter().any(|word| word == "--search") || has("search")
}

#[test]
fn every_command_is_parsed() {
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    let mut parsed = Vec::new();
    for words in &commands {
        assert_eq!(words[0], "loadgen", "{words:?}");
        if is_known(words) {
            if let Err(error) = Flags::try_parse_from(words) {
                panic!("{words:?}: {error}");
            }
            parsed.push(words[1].as_str());
        }
    }
    for command in ["storm", "traffic", "reflect", "compare", "report"] {
        assert!(
            parsed.contains(&command),
            "no example of {command} was parsed: {parsed:?}"
        );
    }
}
