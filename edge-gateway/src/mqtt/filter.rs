//! Topic filters (§4.7) and shared subscriptions (§4.8.2).

/// Before the name of a shared subscription.
const SHARE: &str = "$share/";

/// Whether this is a filter: not empty, `#` alone in the last level, `+` alone in its level; a shared one with a name without
/// wildcards and a filter behind it.
#[must_use]
pub fn is_valid(filter: &str) -> bool {
    if is_shared(filter) {
        return shared(filter).is_some_and(|(name, filter)| {
            !name.is_empty() && !name.contains(['+', '#']) && is_plain(filter)
        });
    }
    is_plain(filter)
}

fn is_plain(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    let mut valid = !filter.is_empty() && !filter.contains('\0');
    while let Some(level) = levels.next() {
        valid &= match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            _ => !level.contains(['+', '#']),
        };
    }
    valid
}

/// Whether it begins as a shared subscription does.
#[must_use]
pub fn is_shared(filter: &str) -> bool {
    filter.starts_with(SHARE)
}

/// Name and filter of a shared subscription.
#[must_use]
pub fn shared(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix(SHARE)?.split_once('/')
}

/// Whether a valid, unshared `filter` matches `topic`. Wildcards don't match a first level that begins with `$` (MQTT-4.7.2-1).
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut levels, mut names) = (filter.split('/'), topic.split('/'));
    loop {
        match (levels.next(), names.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some(level), Some(name)) if level == "+" || level == name => {}
            (Some(_), _) | (None, Some(_)) => return false,
        }
    }
}

/// Whether everything that `inner` matches is matched by `outer` too. Both valid and unshared.
#[must_use]
pub fn covers(outer: &str, inner: &str) -> bool {
    if inner.starts_with('$') && outer.starts_with(['+', '#']) {
        return false;
    }
    let (mut outer, mut inner) = (outer.split('/'), inner.split('/'));
    loop {
        match (outer.next(), inner.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(outer), Some(inner)) if outer == inner => {}
            (Some(_), _) | (None, Some(_)) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn examples_of_the_standard() {
        // §4.7.1.2, §4.7.1.3, §4.7.2.
        for topic in
            ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"]
        {
            assert!(matches("sport/tennis/player1/#", topic), "{topic}");
        }
        assert!(matches("sport/#", "sport"));
        assert!(matches("sport/tennis/+", "sport/tennis/player1"));
        assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
        assert!(!matches("sport/+", "sport") && matches("sport/+", "sport/"));
        assert!(matches("+/+", "/finance") && matches("/+", "/finance") && !matches("+", "/finance"));
        assert!(!matches("#", "$SYS/x") && !matches("+/monitor/Clients", "$SYS/monitor/Clients"));
        assert!(matches("$SYS/#", "$SYS/x") && matches("$SYS/monitor/+", "$SYS/monitor/Clients"));
        assert!(!matches("ACCOUNTS", "Accounts"));
        assert!(matches("é/+", "é/x"));
        for valid in
            ["#", "+", "+/tennis/#", "sport/+/player1", "/", "a//b", "$share/g/a/+", "$share/g/#", "é"]
        {
            assert!(is_valid(valid), "{valid}");
        }
        for invalid in [
            "",
            "sport/tennis#",
            "sport/tennis/#/ranking",
            "sport+",
            "a/+b",
            "$share/g",
            "$share//a",
            "$share/g/",
            "$share/+/a",
            "$share/g/a#",
            "a\0",
        ] {
            assert!(!is_valid(invalid), "{invalid}");
        }
    }

    #[test]
    fn a_filter_covers_what_it_includes() {
        for (outer, inner) in
            [("#", "a/b"), ("a/#", "a"), ("a/#", "a/+/c"), ("a/+", "a/b"), ("a/+", "a/+"), ("a/b", "a/b")]
        {
            assert!(covers(outer, inner), "{outer} {inner}");
        }
        for (outer, inner) in [
            ("a/+", "a/#"),
            ("a/b", "a/+"),
            ("a/+", "a/b/c"),
            ("a/#", "b"),
            ("#", "$SYS/#"),
            ("a", "a/b"),
            ("a/b", "a"),
        ] {
            assert!(!covers(outer, inner), "{outer} {inner}");
        }
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["+", "a", "b", ""]);
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(levels, all)| {
            let filter = levels.join("/");
            if all { format!("{filter}/#") } else { filter }
        })
    }

    proptest! {
        #[test]
        fn what_is_covered_is_matched(
            outer in filter(),
            inner in filter(),
            topic in prop::collection::vec(prop::sample::select(vec!["a", "b", ""]), 1..5),
        ) {
            prop_assume!(is_valid(&outer) && is_valid(&inner));
            let topic = topic.join("/");
            if covers(&outer, &inner) && matches(&inner, &topic) {
                prop_assert!(matches(&outer, &topic), "{} {} {}", outer, inner, topic);
            }
        }

        #[test]
        fn any_text_is_judged_without_panic(filter in ".*", topic in ".*") {
            if is_valid(&filter) && !is_shared(&filter) {
                let _seen = matches(&filter, &topic);
                prop_assert!(covers(&filter, &filter));
            }
        }
    }
}
