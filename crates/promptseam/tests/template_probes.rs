//! Replays a table of templates against what the real Jinja2 printed for them.

use promptseam::{
    json::{self, Json, Style},
    template::{ChatRequest, ChatTemplate, Now, SpecialTokens},
};

const TABLE: &str = include_str!("fixtures/jinja_probes.json");

fn render(template: &str, context: &Json<'_>) -> promptseam::error::Result<String> {
    let body = format!(
        r#"{{"messages": [{{"role": "user", "content": "hi"}}], "chat_template_kwargs": {}}}"#,
        json::dumps(context, &Style::default())
    );
    let request = ChatRequest::parse(body.as_bytes())?;
    let template = ChatTemplate::new(template, &SpecialTokens::default())?;
    let now = Now::from_unix_millis(1_707_102_429_045, 0);
    template.render(&template.prepare(&request)?, now)
}

/// Every probe agrees with Jinja2, except those listed as known to differ; and
/// those still do, so that the list stays true.
#[test]
fn templates_print_what_jinja2_prints() {
    let table = json::parse(TABLE.as_bytes()).expect("the table is JSON");
    let table = table.as_object().expect("the table is an object");
    let list = |name| table.get(name).and_then(Json::as_array).expect("a list");
    let context = table.get("context").expect("a context");
    let differs: Vec<&str> = list("differs").iter().filter_map(Json::as_str).collect();
    let mut wrong = Vec::new();
    for probe in list("probes") {
        let probe = probe.as_object().expect("a probe is an object");
        let template = probe
            .get("template")
            .and_then(Json::as_str)
            .expect("a template");
        let want = probe.get("text").and_then(Json::as_str);
        let got = render(template, context);
        let agrees = got.as_deref().ok() == want;
        if agrees == differs.contains(&template) {
            wrong.push(format!("{template}\n  want {want:?}\n  got  {got:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} probes:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
