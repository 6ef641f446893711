//! How tables are called in SQL.

/// The name with `_` for everything that SQL would want quotes for.
pub(crate) fn plain(name: &str) -> String {
    name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '_' }).collect()
}

/// In quotes, whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// SQLite's names are the same in upper and lower case, and a table has each column once: a second `n` is `n_2`.
pub(crate) fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut taken: Vec<String> = Vec::new();
    for name in names {
        let is_taken = |name: &str| taken.iter().any(|other| other.eq_ignore_ascii_case(name));
        let mut chosen = name.to_owned();
        let mut number = 2;
        while is_taken(&chosen) {
            chosen = format!("{name}_{number}");
            number += 1;
        }
        taken.push(chosen);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_plain_quoted_and_distinct() {
        assert_eq!(plain("iot-10s.v2"), "iot_10s_v2");
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        assert_eq!(distinct(["n", "N", "m", "n", "n_2"].into_iter()), ["n", "N_2", "m", "n_3", "n_2_2"]);
    }
}
