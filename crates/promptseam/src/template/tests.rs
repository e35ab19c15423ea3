use super::*;
use crate::{
    error::{Error, ErrorKind, Result},
    json::{self, Style},
};

const QWEN_LIKE: &str = "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

fn now() -> Now {
    Now::from_unix_millis(1_707_102_429_045, 0)
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, &SpecialTokens::default()).unwrap()
}

fn render(source: &str, body: &str) -> Result<String> {
    let template = ChatTemplate::new(source, &SpecialTokens::default())?;
    let request = ChatRequest::parse(body.as_bytes())?;
    template.render(&template.prepare(&request)?, now())
}

fn run(source: &str) -> Result<String> {
    render(
        source,
        r#"{"messages": [{"role": "user", "content": "hi"}]}"#,
    )
}

/// The prepared messages as JSON.
fn prepared(source: &str, messages: &str) -> String {
    let body = format!(r#"{{"messages": {messages}}}"#);
    let request = ChatRequest::parse(body.as_bytes()).unwrap();
    let messages = template(source)
        .prepare(&request)
        .unwrap()
        .messages()
        .to_vec();
    Data::list(messages.into_iter().map(Data::Map).collect()).to_json(&Style::default())
}

fn refused(body: &str) -> Error {
    ChatRequest::parse(body.as_bytes()).expect_err(body)
}

#[test]
fn messages_are_prepared_as_vllm_prepares_them() {
    let parts = "{% for m in messages %}{% for c in m.content %}{% endfor %}{% endfor %}";
    for (messages, string, list) in [
        (
            r#"[{"role":"user","content":"x","extra":1,"name":"bob"}]"#,
            r#"[{"role": "user", "content": "x", "name": "bob"}]"#,
            r#"[{"role": "user", "content": [{"type": "text", "text": "x"}], "name": "bob"}]"#,
        ),
        (
            r#"[{"role":"user","content":[{"type":"text","text":""},{"type":"text","text":"b","k":1}]}]"#,
            r#"[{"role": "user", "content": "b"}]"#,
            r#"[{"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "b", "k": 1}]}]"#,
        ),
        (
            r#"[{"role":"assistant","content":null,"reasoning_content":"r","tool_calls":[]}]"#,
            r#"[{"role": "assistant", "content": "", "reasoning": "r", "reasoning_content": "r"}]"#,
            r#"[{"role": "assistant", "content": [], "reasoning": "r", "reasoning_content": "r"}]"#,
        ),
        (
            r#"[{"role":"tool","tool_call_id":"a","content":[{"type":"text","text":"x"},{"type":"text","text":"y"}]}]"#,
            r#"[{"role": "tool", "content": "x\ny", "tool_call_id": "a"}]"#,
            r#"[{"role": "tool", "content": "x\ny", "tool_call_id": "a"}]"#,
        ),
        (
            r#"[{"role":"system","content":"x-anthropic-billing-header: 1\nrest"}]"#,
            r#"[{"role": "system", "content": "rest"}]"#,
            r#"[{"role": "system", "content": [{"type": "text", "text": "rest"}]}]"#,
        ),
        (
            r#"[{"role":"user","content":"u"},{"role":"developer","content":"d","tools":5},{"role":"system","content":"s"}]"#,
            r#"[{"role": "system", "content": "d\n\ns"}, {"role": "user", "content": "u"}]"#,
            r#"[{"role": "system", "content": "d\n\ns"}, {"role": "user", "content": [{"type": "text", "text": "u"}]}]"#,
        ),
    ] {
        assert_eq!(prepared("{{ 1 }}", messages), string, "{messages}");
        assert_eq!(prepared(parts, messages), list, "{messages}");
    }
    assert_eq!(
        prepared(
            "{{ 'developer' }}",
            r#"[{"role":"developer","content":"d"}]"#
        ),
        r#"[{"role": "developer", "content": "d", "tools": null}]"#
    );
}

#[test]
fn tool_calls_are_rebuilt_and_their_arguments_parsed() {
    let call = |arguments: &str| {
        let arguments = json::dumps(&json::Json::String(arguments.into()), &Style::default());
        prepared(
            "{{ 1 }}",
            &format!(
                r#"[{{"role":"assistant","content":"","tool_calls":[{{"zz":1,"type":"function","function":{{"name":"f","arguments":{arguments},"x":2}},"id":"c"}}]}}]"#
            ),
        )
    };
    let want = |arguments: &str| {
        format!(
            r#"[{{"role": "assistant", "content": "", "tool_calls": [{{"id": "c", "function": {{"arguments": {arguments}, "name": "f", "x": 2}}, "type": "function", "zz": 1}}]}}]"#
        )
    };
    for (given, got) in [
        (r#"{"b":1,"a":2.50}"#, r#"{"b": 1, "a": 2.5}"#),
        (r#"{"a":NaN,"b":1e400}"#, r#"{"a": NaN, "b": Infinity}"#),
        (r#"{"a":1,"b":2,"a":3}"#, r#"{"a": 3, "b": 2}"#),
        (
            r#"{"n":123456789012345678901234567890}"#,
            r#"{"n": 123456789012345678901234567890}"#,
        ),
        ("[1]", "{}"),
        ("", "{}"),
        ("{bad", "{}"),
        ("\u{feff}{}", "{}"),
    ] {
        assert_eq!(call(given), want(got), "{given}");
    }
}

#[test]
fn tools_are_rebuilt_from_what_vllm_knows() {
    let body = r#"{"messages":[{"role":"user","content":"x"}],"tools":[{"x":1,"function":{"parameters":{"b":1,"a":2},"name":"f","q":1,"strict":"yes"},"type":"function"},{"function":{"name":"g"}}]}"#;
    let request = ChatRequest::parse(body.as_bytes()).unwrap();
    assert_eq!(request.tool_choice(), &ToolChoice::Auto);
    let prepared = template("{{ 1 }}").prepare(&request).unwrap();
    assert_eq!(
        prepared.tools().unwrap().to_json(&Style::default()),
        r#"[{"type": "function", "function": {"name": "f", "description": null, "parameters": {"b": 1, "a": 2}, "strict": true}}, {"type": "function", "function": {"name": "g", "description": null, "parameters": null}}]"#
    );
}

#[test]
fn malformed_requests_name_the_path() {
    for (body, path) in [
        (r#"{}"#, "messages"),
        (r#"{"messages":[]}"#, "messages"),
        (r#"{"messages":{}}"#, "messages"),
        (r#"{"messages":[5]}"#, "messages[0]"),
        (r#"{"messages":[{"content":"x"}]}"#, "messages[0].role"),
        (
            r#"{"messages":[{"role":"user","content":null}]}"#,
            "messages[0].content",
        ),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"foo"}]}]}"#,
            "messages[0].content[1]",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"},{"role":"user","content":"x","name":5}]}"#,
            "messages[1].name",
        ),
        (
            r#"{"messages":[{"role":"assistant","content":"","tool_calls":[{"id":"a"}]}]}"#,
            "messages[0].tool_calls[0]",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"tools":[]}"#,
            "tools",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"tools":[{"function":{}}]}"#,
            "tools[0].function.name",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"tool_choice":"auto"}"#,
            "tool_choice",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"continue_final_message":true}"#,
            "continue_final_message",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"chat_template":"x"}"#,
            "chat_template",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"chat_template_kwargs":{"messages":1}}"#,
            "chat_template_kwargs.messages",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"reasoning_effort":"huge"}"#,
            "reasoning_effort",
        ),
    ] {
        let error = refused(body);
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{body}");
        assert!(error.message().starts_with(path), "{body}: {error}");
    }
    let error = refused(
        r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#,
    );
    assert_eq!(error.kind(), ErrorKind::UnsupportedContent);
    assert!(error.message().starts_with("messages[0].content[0]"));
    assert_eq!(refused("[]").kind(), ErrorKind::InvalidRequest);
    assert_eq!(refused("{").kind(), ErrorKind::InvalidJson);
    assert_eq!(
        refused(r#"{"messages":"\ud800"}"#).kind(),
        ErrorKind::InvalidUnicode
    );
}

#[test]
fn template_arguments_reach_the_template() {
    let body = r#"{"messages":[{"role":"user","content":"x"}],"reasoning_effort":"low","chat_template_kwargs":{"a":1,"b":null,"c":"auto","range":5,"add_generation_prompt":false}}"#;
    let source = "{{ a }}|{{ b is defined }}|{{ c is defined }}|{{ range(2)|list }}|{{ add_generation_prompt }}|{{ enable_thinking }}|{{ reasoning_effort }}|{{ tools is none }}";
    assert_eq!(
        render(source, body).unwrap(),
        "1|False|False|[0, 1]|True|True|low|True"
    );
}

#[test]
fn a_final_message_is_continued_as_transformers_does() {
    let body = |content: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"u"}},{{"role":"assistant","content":{content}}}],"continue_final_message":true,"add_generation_prompt":false}}"#
        )
    };
    let want = "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(
        render(QWEN_LIKE, &body("\"Once \"")).unwrap(),
        format!("{want}Once ")
    );
    let trimming = QWEN_LIKE.replace("message.content +", "(message.content|trim) +");
    assert_eq!(
        render(&trimming, &body("\"Once \"")).unwrap(),
        format!("{want}Once")
    );
    let parts =
        "{% for m in messages %}{% for c in m.content %}[{{ c.text }}]{% endfor %}{% endfor %}";
    let list = r#"[{"type":"text","text":"a"},{"type":"text","text":"b"}]"#;
    assert_eq!(render(parts, &body(list)).unwrap(), "[u][a][b");
    let error = render("{{ 'content' }}", &body("\"Once\"")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

#[test]
fn template_errors_are_typed_and_quote_no_prompt() {
    let error = run("{{ raise_exception('use tools, ' ~ messages[0].role) }}").unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::TemplateRaised, "use tools, user")
    );
    let body = r#"{"messages":[{"role":"user","content":"secret"}]}"#;
    for source in [
        "x\n{{ messages[0].content + 1 }}",
        "x\n{{ messages[0].content|int(1, 2, 3) }}",
        "x\n{{ messages.secret.more }}",
        "x\n{% include messages[0].content %}",
    ] {
        let error = render(source, body).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TemplateFailed, "{source}");
        assert!(
            error.message().contains("line 2") && !format!("{error:?}").contains("secret"),
            "{error:?}"
        );
    }
    let error = run("a\nb\n{% if %}").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TemplateSyntax);
    assert!(error.message().contains("line 3"), "{error}");
}

/// Whatever a template tries, it ends soon, with an error and without eating
/// the memory or the stack.
#[test]
fn a_template_cannot_run_or_grow_without_bounds() {
    let check = || {
        for source in [
            "{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}",
            "{{ 'x' * 1000000000 }}",
            "{{ 'x' * 60000000 * 10 }}",
            "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
            "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s]|join %}{% endfor %}",
            "{% set ns = namespace(s='xx') %}{% for i in range(100) %}{% set ns.s = ns.s|replace('x', 'xx') %}{% endfor %}",
            "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
            "{% macro f(x, n) %}{% if n %}{{ f(x ~ x, n - 1) }}{% endif %}{% endmacro %}{{ f('x', 100) }}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            &format!(
                "{{% set x %}}{{% for i in range(5000) %}}{{% for i in range(5000) %}}{}{{% endfor %}}{{% endfor %}}{{% endset %}}",
                "text ".repeat(1000)
            ),
            "{{ '%1000000000d' % 1 }}",
            "{{ '{:1000000000}'.format(1) }}",
            "{{ 'x'.ljust(1000000000) }}",
            "{{ 'x'|center(1000000000) }}",
            "{{ ('x' * 1000)|tojson(indent=1000000000) }}{% for i in range(100000) %}{{ messages|tojson(indent=60000) }}{% endfor %}",
        ] {
            let error = run(source).expect_err(source);
            assert!(
                matches!(
                    error.kind(),
                    ErrorKind::TooLarge | ErrorKind::TemplateFailed
                ),
                "{source}: {error:?}"
            );
        }
        let nested = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
        assert_eq!(
            run(&format!("{{{{ {nested} }}}}")).unwrap_err().kind(),
            ErrorKind::TemplateSyntax
        );
    };
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(check)
        .unwrap()
        .join()
        .unwrap();
}

/// Edits of the source keep what it means, however it is spaced.
#[test]
fn edited_operators_keep_their_operands() {
    for (source, want) in [
        ("{% for x in[1,2]%}{{x}}{%endfor%}", "12"),
        ("{% for x in [3,4]if x>3%}{{x}}{%endfor%}", "4"),
        (
            "{% for x in [[1,[2]],3]recursive%}{{loop(x) if x is not number else x}}{%endfor%}",
            "123",
        ),
        ("{{'a'~'b'[0:1]~('c'~'d')[1:]}}", "abd"),
        ("{{ (('a'+'b')*2)[1:][:2]~'%s%%'%(7%4)~-5%3 }}", "ba3%1"),
        (
            "{% set x=('a'+('b'+'c'))[::-1] %}{{x}}{{[1,2,3][1:]|length*2}}",
            "cba4",
        ),
        (
            "{# {% for x in y %} #}{% raw %}{% for %}{{a~b}}{% endraw %}{{'~'~'[1:]'}}",
            "{% for %}{{a~b}}~[1:]",
        ),
        (
            "{% set x = {'a':[1,2,3],'b':'x'~'y'} %}{{x.a[1:]}}{{x['b'][:1]}}",
            "[2, 3]x",
        ),
        (
            "{{ messages[0:1][0]['role'][1:] ~ messages[-1].role[:-2] }}",
            "serus",
        ),
        ("{% generation %}{{ 'a' ~ 1 }}{% endgeneration %}", "a1"),
    ] {
        assert_eq!(run(source).unwrap(), want, "{source}");
    }
}

#[test]
fn templates_are_chosen_by_name() {
    let tokens = SpecialTokens::from_tokenizer_config(
        &json::parse(br#"{"bos_token":"<s>","eos_token":{"content":"</s>"},"pad_token":null}"#)
            .unwrap(),
    );
    let set = json::parse(br#"[{"name":"default","template":"{{ bos_token }}d"},{"name":"tool_use","template":"t{{ eos_token }}"}]"#).unwrap();
    let set = TemplateSet::from_json(&set, &tokens).unwrap();
    for (tools, want) in [
        ("null", "<s>d"),
        (r#"[{"function":{"name":"f"}}]"#, "t</s>"),
    ] {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"tools":{tools}}}"#);
        let request = ChatRequest::parse(body.as_bytes()).unwrap();
        let template = set.select(request.has_tools()).unwrap();
        assert_eq!(
            template
                .render(&template.prepare(&request).unwrap(), now())
                .unwrap(),
            want
        );
    }
    for (json, kind) in [
        ("null", ErrorKind::TemplateMissing),
        ("[]", ErrorKind::TemplateMissing),
        ("5", ErrorKind::ModelFile),
    ] {
        let error =
            TemplateSet::from_json(&json::parse(json.as_bytes()).unwrap(), &tokens).unwrap_err();
        assert_eq!(error.kind(), kind);
    }
}

#[test]
fn stand_in_histories_share_messages() {
    let body = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}"#;
    let request = ChatRequest::parse(body.as_bytes()).unwrap();
    let template = template(QWEN_LIKE);
    let prepared = template.prepare(&request).unwrap();
    let tail = prepared
        .with_messages(prepared.messages()[1..].to_vec())
        .with_generation_prompt(false);
    assert_eq!(
        template.render(&tail, now()).unwrap(),
        "<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
    );
}

#[test]
fn a_template_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<ChatTemplate>();
    shared::<Prepared>();
    shared::<ChatRequest>();
}
