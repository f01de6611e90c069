use super::*;
use crate::config::BrokerConfig;
use crate::event_id::Identity;

const MINUTE: Duration = Duration::from_secs(60);

fn verifier(timeout: Duration) -> AckVerifier {
    let known = KnownStreams::new(&BrokerConfig::default(), Identity::Stream);
    AckVerifier::new(Arc::new(known), "$JS.API".into(), timeout)
}

fn handle(verifier: &mut AckVerifier, token: &str, data: &str) -> Vec<PublishResult> {
    verifier.handle(&Response { token, status: None, data: data.as_bytes() }, &|_| Some("events.a".into()))
}

fn asked(verifier: &mut AckVerifier) -> Vec<String> {
    verifier.take_requests().into_iter().map(|request| request.subject).collect()
}

const INFO: &str = r#"{"config":{"name":"E","retention":"limits","duplicate_window":120000000000},
    "created":"2026-01-01T00:00:00Z","state":{"messages":1,"first_seq":1,"last_seq":1}}"#;
const NO_STREAM: &str = r#"{"error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;

#[test]
fn a_streams_answer_counts_once_the_stream_is_found() {
    let mut verifier = verifier(MINUTE);
    assert!(handle(&mut verifier, "7", r#"{"stream":"E","seq":3}"#).is_empty());
    assert!(handle(&mut verifier, "8", r#"{"stream":"E","seq":4,"duplicate":true}"#).is_empty());
    assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.INFO.E"], "once");
    let numbers: Vec<u64> = handle(&mut verifier, "stream-E", INFO).iter().map(|result| result.number).collect();
    assert_eq!(numbers, [7, 8]);
    assert_eq!(handle(&mut verifier, "9", r#"{"stream":"E","seq":5}"#).len(), 1);
    assert!(asked(&mut verifier).is_empty() && !verifier.is_open());
}

#[test]
fn a_stream_whose_subject_another_has_is_asked_for_again() {
    let of = |name: &str, subjects: &str| INFO.replace("\"E\"", &format!("\"{name}\",\"subjects\":[{subjects}]"));
    let mut verifier = verifier(MINUTE);
    for (number, name, subjects) in [("1", "E", r#""a.>""#), ("2", "F", r#""b""#)] {
        handle(&mut verifier, number, &format!(r#"{{"stream":"{name}","seq":1}}"#));
        assert_eq!(asked(&mut verifier), [format!("$JS.API.STREAM.INFO.{name}")]);
        handle(&mut verifier, &format!("stream-{name}"), &of(name, subjects));
    }
    assert!(asked(&mut verifier).is_empty(), "they have no subject in common");
    handle(&mut verifier, "3", r#"{"stream":"G","seq":1}"#);
    assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.INFO.G"]);
    assert_eq!(handle(&mut verifier, "stream-G", &of("G", r#""a.b","c""#)).len(), 1);
    assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.INFO.E"]);
    handle(&mut verifier, "stream-E", NO_STREAM);
    assert_eq!(verifier.known.outdated_by("G"), Vec::<String>::new(), "that stream has no subject any more");
    assert!(asked(&mut verifier).is_empty());
}

#[test]
fn answers_that_are_no_streams_are_passed_over() {
    let mut verifier = verifier(MINUTE);
    for answer in [
        "",
        "+ACK",
        "7",
        "{}",
        r#"{"status":"ok"}"#,
        r#"{"error":"busy"}"#,
        r#"{"stream":"E"}"#,
        r#"{"stream":"E","seq":0}"#,
        r#"{"error":{"code":500}}"#,
        r#"{"stream":"E","error":{}}"#,
        r#"{"stream":"a b\r\n","seq":1}"#,
        r#"{"stream":7,"seq":1}"#,
    ] {
        assert!(handle(&mut verifier, "7", answer).is_empty(), "{answer}");
    }
    assert!(asked(&mut verifier).is_empty(), "no answer names a stream");
    assert!(verifier.take_notice().is_some_and(|notice| notice.contains("not a stream")));
    assert!(verifier.take_notice().is_none(), "reported once");
}

#[test]
fn an_unknown_stream_name_means_a_foreign_answer() {
    let mut verifier = verifier(MINUTE);
    assert!(handle(&mut verifier, "7", r#"{"stream":"X","seq":7}"#).is_empty());
    assert!(handle(&mut verifier, "stream-X", NO_STREAM).is_empty());
    assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.INFO.X", "$JS.API.STREAM.NAMES"]);
    assert!(handle(&mut verifier, "bound-X", r#"{"streams":["E"]}"#).is_empty());
    assert!(handle(&mut verifier, "8", r#"{"stream":"X","seq":8}"#).is_empty());
    assert!(asked(&mut verifier).is_empty());
    assert!(verifier.take_notice().is_some_and(|notice| notice.contains("stream X")));
}

#[test]
fn a_foreign_accounts_stream_counts_if_ours_has_none() {
    let mut verifier = verifier(MINUTE);
    assert!(handle(&mut verifier, "7", r#"{"stream":"X","seq":7}"#).is_empty());
    assert!(handle(&mut verifier, "stream-X", NO_STREAM).is_empty());
    assert_eq!(handle(&mut verifier, "bound-X", r#"{"streams":null}"#).len(), 1);
    assert_eq!(handle(&mut verifier, "8", r#"{"stream":"X","seq":8}"#).len(), 1);
}

#[test]
fn an_acknowledgement_counts_if_it_cannot_be_checked() {
    let mut denied = verifier(MINUTE);
    assert!(handle(&mut denied, "7", r#"{"stream":"E","seq":7}"#).is_empty());
    assert!(denied.handle_denial("\"events.a\"").is_none(), "that is an event's");
    assert_eq!(denied.handle_denial("\"$JS.API.STREAM.INFO.E\"").map(|results| results.len()), Some(1));
    let mut unanswered = verifier(Duration::ZERO);
    assert!(handle(&mut unanswered, "7", r#"{"stream":"E","seq":7}"#).is_empty());
    assert_eq!(unanswered.expire().len(), 1);
    let no_responders = Response { token: "8", status: Some("503"), data: b"" };
    let results = unanswered.handle(&no_responders, &|_| None);
    assert_eq!(results[0].result, Err(Rejection::NoStream));
}

#[test]
fn a_refusal_says_whether_it_may_pass() {
    let refusal = |code: u64, err_code: u64, description: &str| {
        let error = json!({ "code": code, "err_code": err_code, "description": description });
        parse_ack(json!({ "error": error, "stream": "E", "seq": 0 }).to_string().as_bytes()).map(|(_, result)| result)
    };
    for (code, err_code, description) in
        [(503, 10077, "insufficient resources"), (409, 10158, "duplicate message id is in process")]
    {
        assert!(matches!(refusal(code, err_code, description), Some(Err(Rejection::ForNow(_)))), "{description}");
    }
    let in_process = parse_ack(br#"{"stream":"E","seq":0,"duplicate":true}"#).map(|(_, result)| result);
    assert!(matches!(in_process, Some(Err(Rejection::ForNow(_)))));
    let lasting = refusal(400, 10054, "message size exceeds maximum allowed");
    assert!(matches!(lasting, Some(Err(Rejection::ByServer(_)))));
}

/// The results of an answer about a batch, for each event its number and `stored`, `stored at` its sequence, or `not stored`.
fn batch_answers(verifier: &mut AckVerifier, (token, data): (String, String)) -> Vec<(u64, String)> {
    let shown = |result: Result<Acknowledgement, Rejection>| match result {
        Ok(Acknowledgement::ByStream { sequence: Some(sequence), .. }) => format!("stored at {sequence}"),
        Ok(Acknowledgement::ByStream { .. }) => "stored".into(),
        Err(Rejection::ForNow(_)) => "not stored".into(),
        other => panic!("{other:?}"),
    };
    let results = handle(verifier, &token, &data).into_iter();
    results.map(|PublishResult { number, result }| (number, shown(result))).collect()
}

#[test]
fn the_answers_to_a_batch_tell_which_events_are_stored() {
    let mut verifier = verifier(MINUTE);
    let ended = |first: u64, last: u64, position: u64, stored: u64| {
        let token = format!("abc0-{first}-{last}.1000.fail.{position}.1.$FI");
        (token, format!(r#"{{"stream":"E","seq":90,"batch":"x","count":{stored}}}"#))
    };
    assert_eq!(batch_answers(&mut verifier, ended(1, 2, 2, 2)), [], "the stream is not known");
    assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.INFO.E"]);
    let found = batch_answers(&mut verifier, ("stream-E".into(), INFO.into()));
    assert_eq!(found, [(1, "stored".into()), (2, "stored at 90".into())]);
    let begun = ("abc0-5-7.1000.fail.1.0.$FI".into(), r#"{"type":"ack","seq":0,"msgs":500}"#.into());
    assert_eq!(batch_answers(&mut verifier, begun), []);
    assert_eq!(
        batch_answers(&mut verifier, ended(5, 7, 3, 3)),
        [(5, "stored".into()), (6, "stored".into()), (7, "stored at 90".into())]
    );
    let cut = ended(10, 15, 4, 2);
    assert_eq!(
        batch_answers(&mut verifier, cut),
        [(10, "stored".into()), (11, "stored at 90".into()), (12, "not stored".into()), (13, "not stored".into())]
    );
    let refused = |first: u64, position: u64| {
        let error = json!({ "code": 400, "err_code": 10208, "description": "batch publish ID unknown" });
        let token = format!("abc0-{first}-{}.1000.fail.{position}.1.$FI", first + 5);
        (token, json!({ "error": error, "stream": "E", "seq": 0 }).to_string())
    };
    assert_eq!(
        batch_answers(&mut verifier, refused(10, 5)),
        [(14, "not stored".into())],
        "the others have their answers"
    );
    assert_eq!(
        batch_answers(&mut verifier, refused(20, 3)),
        [(20, "not stored".into()), (21, "not stored".into()), (22, "not stored".into())],
        "a batch that the server forgot"
    );
    assert_eq!(batch_answers(&mut verifier, refused(20, 4)), [(23, "not stored".into())]);
    assert_eq!(batch_answers(&mut verifier, ended(30, 31, 9, 2)), [], "there is no such event");
}

#[test]
fn before_anything_is_sent_again_the_streams_are_asked() {
    let mut verifier = verifier(MINUTE);
    verifier.request_streams(&["events.a".into()]);
    assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.NAMES"]);
    handle(&mut verifier, "subject-0", r#"{"streams":["E"]}"#);
    assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.INFO.E"]);
    assert!(verifier.is_open());
    handle(&mut verifier, "stream-E", INFO);
    assert!(!verifier.is_open());
    verifier.request_streams(&["events.b".into()]);
    assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.INFO.E", "$JS.API.STREAM.NAMES"], "the known one again");
    assert!(verifier.handle_denial("\"$JS.API.STREAM.NAMES\"").is_some_and(|results| results.is_empty()));
    assert!(verifier.is_open(), "it may ask the stream");
    verifier.handle(&Response { token: "stream-E", status: Some("503"), data: b"" }, &|_| None);
    assert!(verifier.needs_retry() && !verifier.is_open(), "a server that has just started");
}

#[test]
fn an_event_that_nobody_takes_is_one_without_a_leader_if_its_subject_has_a_stream() {
    let no_responders = |verifier: &mut AckVerifier| {
        let results =
            verifier.handle(&Response { token: "7", status: Some("503"), data: b"" }, &|_| Some("events.a".into()));
        results.into_iter().next().and_then(|result| result.result.err()).expect("a rejection")
    };
    let after = |answer: &str| {
        let mut verifier = verifier(MINUTE);
        assert_eq!(no_responders(&mut verifier), Rejection::NoLeader, "not known yet");
        assert_eq!(asked(&mut verifier), ["$JS.API.STREAM.NAMES"]);
        handle(&mut verifier, "subject-0", answer);
        let rejection = no_responders(&mut verifier);
        assert!(verifier.take_requests().iter().all(|request| request.reply != "subject-1"), "not asked each time");
        rejection
    };
    assert_eq!(after(r#"{"streams":["E"]}"#), Rejection::NoLeader);
    assert_eq!(after(r#"{"streams":null}"#), Rejection::NoStream);
    let error = |code: u64, err_code: u64| {
        json!({ "error": { "code": code, "err_code": err_code, "description": "" } }).to_string()
    };
    assert_eq!(after(&error(503, 10008)), Rejection::NoLeader, "JetStream is not available at the moment");
    assert_eq!(after(&error(503, code::NO_JETSTREAM_FOR_ACCOUNT)), Rejection::NoStream);
    let mut denied = verifier(MINUTE);
    let _ = no_responders(&mut denied);
    assert!(denied.handle_denial("\"$JS.API.STREAM.NAMES\"").is_some());
    assert_eq!(no_responders(&mut denied), Rejection::NoStream);
}

#[test]
fn each_subject_is_asked_for() {
    let mut verifier = verifier(MINUTE);
    let refuse = |verifier: &mut AckVerifier, number: u64| {
        let refused = Response { token: &number.to_string(), status: Some("503"), data: b"" };
        let results = verifier.handle(&refused, &|number| Some(format!("events.{number}")));
        results.into_iter().next().and_then(|result| result.result.err())
    };
    for number in 0..1_000 {
        assert_eq!(refuse(&mut verifier, number), Some(Rejection::NoLeader), "not known yet");
    }
    let mut answered = 0;
    loop {
        let open = verifier.take_requests();
        if open.is_empty() {
            break;
        }
        assert!(open.len() <= 256, "{}", open.len());
        answered += open.len();
        for request in &open {
            handle(&mut verifier, &request.reply, r#"{"streams":null}"#);
        }
    }
    assert_eq!(answered, 1_000);
    assert!((0..1_000).all(|number| refuse(&mut verifier, number) == Some(Rejection::NoStream)));
}
