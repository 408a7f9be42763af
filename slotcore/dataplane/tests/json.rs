//! The validator against `serde_json`, hostile cases, and attempts to smuggle keys.

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use slotcore_dataplane::json::{DEPTH_MAX, validate_object};

/// What `serde_json` says of the syntax, and that it is an object.
fn is_object(input: &[u8]) -> bool {
    // IgnoredAny checks the syntax alone: a lone surrogate and a huge number are syntax like any other.
    serde_json::from_slice::<IgnoredAny>(input).is_ok()
        && input.trim_ascii_start().first() == Some(&b'{')
}

fn check(input: &[u8]) {
    let shown = String::from_utf8_lossy(input);
    let ours = validate_object(input);
    assert_eq!(
        ours.is_ok(),
        std::str::from_utf8(input).is_ok() && is_object(input),
        "{shown}: {ours:?}"
    );
    match ours {
        Ok(members) => {
            assert_eq!(input[members.end], b'}');
            assert_eq!(input[..members.start].trim_ascii(), b"{");
        }
        Err(error) => assert!(error.offset <= input.len(), "{shown}: {error}"),
    }
}

#[test]
fn right_ones() {
    for text in [
        "{}",
        " \t\r\n{ } \n",
        r#"{"":0}"#,
        r#"{"a":[{},[],"",-0,0.0,1e1,1E+1,1e-1,-12.5e+09,true,false,null]}"#,
        r#"{"\"\\\/\b\f\n\r\t\u0000\uD800\uFFff":"é€😀\u00e9"}"#,
        r#"{"a":1,"a":2}"#,
        "{\"a\":\"\u{7f}\u{80}\u{2028}\"}",
        "{ \"a\" : [ 1 , 2 ] , \"b\" : { \"c\" : null } }",
        r#"{"long":"0123456789012345678901234567890123456789"}"#,
        r#"{"n":123456789012345678901234567890e999999}"#,
    ] {
        assert!(
            validate_object(text.as_bytes()).is_ok(),
            "{text}: {:?}",
            validate_object(text.as_bytes())
        );
        check(text.as_bytes());
    }
}

#[test]
fn wrong_ones() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[]",
        "1",
        "\"a\"",
        "null",
        "{}{}",
        "{},",
        "{}}",
        "{} x",
        "x{}",
        "{}\0",
        "{,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1]",
        "{\"a\":[1}",
        "{\"a\":[1,]}",
        "{\"a\":[,1]}",
        "{\"a\":[1 2]}",
        "{\"a\"::1}",
        "{\"a\",1}",
        "{1:1}",
        "{\"a\":01}",
        "{\"a\":-}",
        "{\"a\":1.}",
        "{\"a\":.1}",
        "{\"a\":+1}",
        "{\"a\":1e}",
        "{\"a\":1e+}",
        "{\"a\":0x1}",
        "{\"a\":1_0}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":-Infinity}",
        "{\"a\":tru}",
        "{\"a\":truex}",
        "{\"a\":True}",
        "{\"a\":nul",
        "{\"a\":\"",
        "{\"a\":\"\\\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\t\"}",
        "{\"a\":\"\0\"}",
        "{\"a\":\"\u{1f}\"}",
        "{\"a\":1}/**/",
        "{/**/}",
        "{}//",
        "\u{feff}{}",
        "\u{a0}{}",
        "{}\u{c}",
        "{\"a\":1}}\",\"x\":{\"",
        "{}, \"x\": {}",
        "}, \"x\": {",
        "{}}, \"x\": {{}",
        "{\"a\": \"\\\", \"x\": \"1}",
    ] {
        assert!(validate_object(text.as_bytes()).is_err(), "{text}");
        check(text.as_bytes());
    }
    for bytes in [
        &b"{\"a\":\"\xff\"}"[..],
        b"{\"a\":\"\xc0\xaf\"}",
        b"{\"a\":\"\xed\xa0\x80\"}",
        b"{\"a\":\"\xe9\"}",
        b"{\"\xff\":\"long enough for a word\"}",
    ] {
        assert_eq!(validate_object(bytes).unwrap_err().what, "not UTF-8");
    }
}

#[test]
fn errors_say_where() {
    for (text, offset, what) in [
        ("{} x", 3, "something follows the JSON object"),
        ("[1]", 0, "not a JSON object"),
        ("{\"a\":1,}", 7, "a key is missing"),
        ("{\"a\":1", 6, "it ends too early"),
    ] {
        let error = validate_object(text.as_bytes()).unwrap_err();
        assert_eq!((error.offset, error.what), (offset, what), "{text}");
    }
}

#[test]
fn depth_is_bounded() {
    let max = DEPTH_MAX as usize - 1;
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[[{\"b\":", "}]]")] {
        let count = open.chars().filter(|c| "[{".contains(*c)).count();
        let nest =
            |times: usize| format!("{{\"a\":{}1{}}}", open.repeat(times), close.repeat(times));
        assert!(validate_object(nest(max / count).as_bytes()).is_ok());
        let error = validate_object(nest(max / count + 1).as_bytes()).unwrap_err();
        assert_eq!(error.what, "nested too deeply");
    }
    assert!(validate_object("{\"a\":".repeat(100_000).as_bytes()).is_err());
    // Each level may be an object or an array, and each must be closed as what it is.
    let mixed =
        format!("{{\"a\":{}{}}}", "[{\"a\":".repeat(31), "}]".repeat(31)).replace(":}", ":0}");
    assert!(validate_object(mixed.as_bytes()).is_ok());
    assert!(validate_object(mixed.replacen("}]", "]}", 1).as_bytes()).is_err());
}

#[test]
fn members_are_what_stands_between_the_braces() {
    for (text, members) in [
        ("{}", ""),
        (" {\n } ", ""),
        ("{\"a\":{}}", "\"a\":{}"),
        (" { \"a\" : 1 } ", "\"a\" : 1 "),
    ] {
        assert_eq!(&text[validate_object(text.as_bytes()).unwrap()], members);
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((".{0,12}", inner), 0..6)
                .prop_map(|pairs| Value::from(Map::from_iter(pairs))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn agrees_on_json(value in values(), is_pretty in any::<bool>()) {
        let text = if is_pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        check(text.as_bytes());
        check(format!("{{\"k\":{text}}}").as_bytes());
    }

    #[test]
    fn agrees_on_almost_json(
        value in values(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, prop::sample::select(br#"{}[]",:\ 0-.eEtu/x"#.to_vec())), 1..4),
    ) {
        let mut text = format!("{{\"k\":{value}}}").into_bytes();
        for (index, kind, byte) in edits {
            let at = index.index(text.len());
            match kind {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ => { text.remove(at); }
            }
        }
        check(&text);
    }

    #[test]
    fn agrees_on_tokens(tokens in prop::collection::vec(prop::sample::select(vec!["{", "}", "[", "]", ",", ":", "\"a\"", "1", "null", " "]), 0..12)) {
        check(format!("{{{}}}", tokens.concat()).as_bytes());
        check(tokens.concat().as_bytes());
    }

    #[test]
    fn spliced_members_add_no_key_outside(payload in values(), defaults in values(), junk in ".{0,20}") {
        let (payload, defaults) = (format!("{{\"p\":{payload}}}"), format!("{{\"d\":{defaults}}}"));
        let members = |text: &str| text[validate_object(text.as_bytes()).unwrap()].to_owned();
        let spliced = format!("{{\"value\":{{{},{}}},\"activation_id\":\"1\"}}", members(&defaults), members(&payload));
        let whole: Map<String, Value> = serde_json::from_str(&spliced).unwrap();
        prop_assert_eq!(whole.keys().collect::<Vec<_>>(), ["activation_id", "value"]);
        prop_assert_eq!(whole["value"].as_object().unwrap().keys().collect::<Vec<_>>(), ["d", "p"]);
        // What is not accepted alone is never spliced; what is accepted can be.
        if let Ok(range) = validate_object(junk.as_bytes()) {
            let spliced = format!("{{\"value\":{{{}}}}}", &junk[range]);
            prop_assert!(is_object(spliced.as_bytes()));
        }
    }
}
