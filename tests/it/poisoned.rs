//! Rows that can't be read: each harms nothing but itself, is never taken for something else, and
//! goes on where it was once it is put right.

use std::collections::BTreeMap;

use delos_deploy::{domain::outcome::digest, wire::pb::GetDeploymentRequest};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _};
use tonic::Code;

use crate::harness::{
    App, Storage,
    binary::Binary,
    http, minutes, on_lasting_storage, postgres, settings, until,
    users::{good, outcome, report, roll_out, serve},
};

/// The database of a service, as an operator has it before him.
enum Database {
    Sqlite(sqlx::SqliteConnection),
    Postgres(sqlx::PgConnection),
}

impl Database {
    async fn of(settings: &BTreeMap<String, String>) -> Self {
        match settings.get("DELOS_SQLITE_PATH") {
            Some(path) => {
                let url = format!("sqlite://{path}");
                Self::Sqlite(sqlx::SqliteConnection::connect(&url).await.unwrap())
            }
            None => Self::Postgres(postgres::connect(settings).await),
        }
    }

    /// Changes rows; there must be some.
    async fn change(&mut self, sql: &str) {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let changed = match self {
            Self::Sqlite(database) => query.execute(database).await.unwrap().rows_affected(),
            Self::Postgres(database) => query.execute(database).await.unwrap().rows_affected(),
        };
        assert!(changed > 0, "nothing is changed by {sql}");
    }

    /// An id in SQL.
    fn id(&self, id: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("X'{}'", id.replace('-', "")),
            Self::Postgres(_) => format!("'{id}'"),
        }
    }
}

/// A rollout that takes a step each minute.
fn gradual(prompt: &str, version: i32) -> Value {
    json!({
        "prompt_id": prompt,
        "environment": "production",
        "to_version": version,
        "strategy": {"type": "DEPLOYMENT_TYPE_GRADUAL", "initial_percentage": 5, "increment": 5,
            "interval_seconds": 60},
        "skip_approval": true,
        "metadata": {"team": "one"},
    })
}

fn id(deployment: &Value) -> String {
    deployment["id"].as_str().unwrap().to_owned()
}

async fn percentage(app: &App, id: &str) -> i64 {
    let deployment = app.get(id).await;
    deployment["rollout"]["current_percentage"]
        .as_i64()
        .unwrap()
}

/// How many rows of a table are set aside, by the metric.
async fn set_aside(address: &str, table: &str) -> String {
    let answer = http::get(address, "/metrics").await.unwrap();
    let series = format!("deploy_rows_set_aside{{table=\"{table}\"");
    let mut lines = answer.text().lines();
    let line = lines.find(|line| line.starts_with(&series));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.unwrap_or("none").to_owned()
}

/// That a call is answered with the row that can't be read.
async fn answers_corrupt(app: &App, method: &str, path: &str, table: &str, key: &str) {
    let body = (method == "POST").then(|| json!({}));
    let answer = app.rest(method, path, body).await;
    let problem = answer.json();
    assert_eq!(answer.status, 500, "{method} {path}: {problem}");
    assert_eq!(problem["reason"], "CORRUPT_ROW", "{problem}");
    assert_eq!(problem["metadata"], json!({"table": table, "key": key}));
}

/// A prompt with a custom gate that has been reported, and its rollout.
async fn gated(app: &App, prompt: &str) -> String {
    let gate = app
        .rest("POST", "/v1/quality-gates", Some(custom_gate(prompt)))
        .await;
    let gate = gate.json()["quality_gate"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let deployment = id(&app.create(gradual(prompt, 1)).await);
    let path = format!("/v1/deployments/{deployment}/gates/{gate}/conditions/0");
    let reported = app.rest("POST", &path, Some(json!({"passed": true}))).await;
    assert_eq!(reported.status, 200, "{reported:?}");
    deployment
}

fn custom_gate(prompt: &str) -> Value {
    json!({
        "name": "reviewed",
        "prompt_id": prompt,
        "required": true,
        "conditions": [{"type": "custom", "operator": "gte", "threshold": 1.0}],
    })
}

/// A column of a row of a deployment, and what makes the row one that can't be read.
type Poison = (&'static str, &'static str, &'static str);

fn poisons(database: &Database) -> Vec<Poison> {
    let mut poisons = vec![
        ("deployments", "status", "'PAUSED'"),
        ("deployments", "environment", "'no name'"),
        ("deployment_strategies", "type", "'TELEPORT'"),
        ("deployment_strategies", "increment", "300"),
        ("deployment_strategies", "analysis", "'{\"alpha\": 1}'"),
        ("deployment_rollouts", "current_percentage", "300"),
        ("deployment_rollouts", "stage", "-1"),
        ("deployment_gate_results", "verdict", "'MAYBE'"),
        ("deployment_condition_results", "operator", "'neq'"),
        ("deployment_condition_results", "type", "'vibes'"),
    ];
    match database {
        // It keeps in a column whatever it is given.
        Database::Sqlite(_) => poisons.extend([
            ("deployments", "revision", "'many'"),
            ("deployments", "created_at", "'yesterday'"),
            ("deployment_strategies", "analysis", "'{'"),
            ("deployment_rollouts", "last_increment_at", "'soon'"),
            ("deployment_gate_results", "required", "'perhaps'"),
        ]),
        Database::Postgres(_) => {
            poisons.push(("deployment_condition_results", "expected", "'NaN'"));
        }
    }
    poisons
}

/// Makes a row of a deployment unreadable, and keeps what it was in a table of the test's own.
async fn poison(database: &mut Database, (table, column, bad): Poison, id: &str) {
    let key = key_of(table);
    let id = database.id(id);
    let keep = format!(
        "CREATE TABLE as_it_was AS SELECT {column} AS value FROM {table} WHERE {key} = {id}"
    );
    database
        .change(&format!(
            "{keep}; UPDATE {table} SET {column} = {bad} WHERE {key} = {id}"
        ))
        .await;
}

async fn put_right(database: &mut Database, (table, column, _): Poison, id: &str) {
    let key = key_of(table);
    let id = database.id(id);
    let back = format!("UPDATE {table} SET {column} = (SELECT value FROM as_it_was LIMIT 1)");
    database
        .change(&format!("{back} WHERE {key} = {id}; DROP TABLE as_it_was"))
        .await;
}

fn key_of(table: &str) -> &'static str {
    if table == "deployments" {
        "id"
    } else {
        "deployment_id"
    }
}

async fn a_corrupt_deployment(storage: Storage) {
    let app = App::start(storage).await;
    let mut database = Database::of(app.settings()).await;
    let bad = gated(&app, "greeting").await;
    for (round, what) in poisons(&database).into_iter().enumerate() {
        let good = id(&app.create(gradual(&format!("other-{round}"), 1)).await);
        let before = percentage(&app, &bad).await;
        poison(&mut database, what, &bad).await;
        is_set_aside(&app, what.0, &bad).await;
        let listed = app.rest("GET", "/v1/deployments?limit=100", None).await;
        let listed = listed.json();
        let ids: Vec<_> = listed["deployments"]
            .as_array()
            .unwrap()
            .iter()
            .map(id)
            .collect();
        assert!(
            ids.contains(&good) && !ids.contains(&bad),
            "{what:?}: {ids:?}"
        );
        assert_eq!(listed["total_count"], round + 2, "{what:?}");

        app.advance(minutes(1)).await;
        assert_eq!(
            percentage(&app, &good).await,
            10,
            "{what:?}: the other one goes on"
        );
        let claimed = claims(&app).await;
        app.advance(minutes(1)).await;
        assert_eq!(
            claims(&app).await,
            claimed + 1,
            "{what:?}: it is claimed again and again"
        );
        let cancel = format!("/v1/deployments/{good}/cancel");
        assert_eq!(app.rest("POST", &cancel, Some(json!({}))).await.status, 200);

        put_right(&mut database, what, &bad).await;
        assert_eq!(percentage(&app, &bad).await, before, "{what:?}");
        assert_eq!(set_aside(&app.address, what.0).await, "0", "{what:?}");
        app.advance(minutes(5)).await;
        // One step, however many were due.
        assert_eq!(percentage(&app, &bad).await, before + 5, "{what:?}");
    }
    app.finish().await;
}

/// That who asks for a deployment is told that it can't be read, and that its events can be.
async fn is_set_aside(app: &App, table: &str, bad: &str) {
    let path = format!("/v1/deployments/{bad}");
    for of in ["", "/explain", "/status"] {
        answers_corrupt(app, "GET", &format!("{path}{of}"), table, bad).await;
    }
    for verb in ["approve", "cancel", "rollback"] {
        answers_corrupt(app, "POST", &format!("{path}/{verb}"), table, bad).await;
    }
    let request = GetDeploymentRequest { id: bad.into() };
    let refused = app.deploy().await.get_deployment(request).await;
    assert_eq!(refused.unwrap_err().code(), Code::DataLoss);
    let events = app.rest("GET", &format!("{path}/events"), None).await;
    assert!(!events.json()["events"].as_array().unwrap().is_empty());
    assert_eq!(set_aside(&app.address, table).await, "1");
}

on_lasting_storage!(a_corrupt_deployment_harms_only_itself, a_corrupt_deployment);

/// How often the reconciler has claimed a deployment.
async fn claims(app: &App) -> u64 {
    let answer = http::get(&app.address, "/metrics").await.unwrap();
    let mut lines = answer.text().lines();
    let line = lines.find(|line| line.starts_with("deploy_reconciler_lag_seconds_count"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap()
}

/// What can't be read may be in progress: nobody starts past it, of its prompt.
async fn a_corrupt_rollout_in_the_way(storage: Storage) {
    let app = App::start(storage).await;
    let mut database = Database::of(app.settings()).await;
    let bad = id(&app.create(gradual("greeting", 1)).await);
    // Of the last one only what is served tells that it is of this prompt.
    let ways = [
        ("status", "'PAUSED'"),
        ("created_by", "created_by"),
        ("prompt_id", "'no name'"),
    ];
    for (column, value) in ways {
        let what = ("deployments", column, value);
        poison(&mut database, what, &bad).await;
        let mut at_once = gradual("greeting", 2);
        at_once["strategy"] = json!({"type": "DEPLOYMENT_TYPE_IMMEDIATE"});
        let waiting = id(&app.create(at_once).await);
        app.advance(minutes(10)).await;
        let now = app.get(&waiting).await;
        assert_eq!(now["status"], "DEPLOYMENT_STATUS_PENDING_GATES", "{column}");
        let says = now["status_message"].as_str().unwrap();
        assert!(says.contains(&bad), "{column}: {says}");
        assert_eq!(
            says.contains("can't be read"),
            column != "created_by",
            "{column}: {says}"
        );
        let explained = app
            .rest("GET", &format!("/v1/deployments/{waiting}/explain"), None)
            .await;
        assert!(
            explained.json()["summary"].as_str().unwrap().contains(&bad),
            "{column}"
        );
        let other = app
            .create(gradual(&format!("beside-{}", column.replace('_', "-")), 1))
            .await;
        assert_eq!(other["status"], "DEPLOYMENT_STATUS_IN_PROGRESS");
        put_right(&mut database, what, &bad).await;
        app.rest(
            "POST",
            &format!("/v1/deployments/{waiting}/cancel"),
            Some(json!({})),
        )
        .await;
    }
    let waiting = id(&app.create(gradual("greeting", 3)).await);
    let cancel = format!("/v1/deployments/{bad}/cancel");
    assert_eq!(app.rest("POST", &cancel, Some(json!({}))).await.status, 200);
    app.tick().await;
    assert_eq!(
        app.get(&waiting).await["status"],
        "DEPLOYMENT_STATUS_IN_PROGRESS"
    );
    app.finish().await;
}

on_lasting_storage!(
    nobody_starts_past_a_rollout_that_cant_be_read,
    a_corrupt_rollout_in_the_way
);

/// Every event that a path lists, by its number, page by page.
async fn event_numbers(app: &App, path: &str) -> Vec<String> {
    let (mut numbers, mut token) = (Vec::new(), String::new());
    loop {
        let page = format!("{path}?page_size=2&page_token={token}");
        let page = app.rest("GET", &page, None).await.json();
        for event in page["events"].as_array().unwrap() {
            numbers.push(event["sequence"].as_str().unwrap().to_owned());
        }
        token = page["next_page_token"].as_str().unwrap().to_owned();
        if token.is_empty() {
            return numbers;
        }
    }
}

async fn a_corrupt_event(storage: Storage) {
    let app = App::start(storage).await;
    let mut database = Database::of(app.settings()).await;
    let bad = id(&app.create(gradual("greeting", 1)).await);
    app.advance(minutes(1)).await;
    let path = format!("/v1/deployments/{bad}/events");
    let of = format!(
        "WHERE deployment_id = {} AND sequence = 2",
        database.id(&bad)
    );
    let mut ways = vec![
        ("action", "'teleport'"),
        ("to_status", "'PAUSED'"),
        ("details", "'[1]'"),
    ];
    if storage == Storage::SqliteFile {
        ways.extend([("details", "'{'"), ("at", "'then'")]);
    }
    for (column, value) in ways {
        let (its, all) = (
            event_numbers(&app, &path).await,
            event_numbers(&app, "/v1/events").await,
        );
        let keep = format!(
            "CREATE TABLE as_it_was AS SELECT {column} AS value FROM deployment_events {of}"
        );
        let spoil = format!("UPDATE deployment_events SET {column} = {value} {of}");
        database.change(&format!("{keep}; {spoil}")).await;
        // It is the last of a page, and what comes after it is not lost with it.
        let left: Vec<_> = its
            .iter()
            .filter(|number| *number != "2")
            .cloned()
            .collect();
        assert_eq!(event_numbers(&app, &path).await, left, "{column} {value}");
        assert_eq!(
            event_numbers(&app, "/v1/events").await.len(),
            all.len() - 1,
            "{column} {value}"
        );
        assert_eq!(
            set_aside(&app.address, "deployment_events").await,
            "1",
            "{column} {value}"
        );
        let before = percentage(&app, &bad).await;
        app.advance(minutes(1)).await;
        assert_eq!(
            percentage(&app, &bad).await,
            before + 5,
            "its deployment goes on"
        );
        let back =
            format!("UPDATE deployment_events SET {column} = (SELECT value FROM as_it_was) {of}");
        database
            .change(&format!("{back}; DROP TABLE as_it_was"))
            .await;
        assert_eq!(event_numbers(&app, &path).await.len(), its.len() + 1);
        assert_eq!(set_aside(&app.address, "deployment_events").await, "0");
    }
    app.finish().await;
}

on_lasting_storage!(a_corrupt_event_is_left_out_of_its_page, a_corrupt_event);

const CONDITIONS: &str = "quality_gate_conditions";

/// That nobody gets past a gate of `greeting`, and nothing is changed by trying.
async fn is_not_passed(app: &App, gate: &str, pending: &str) {
    let gates = "/v1/quality-gates?prompt_id=greeting";
    answers_corrupt(app, "GET", gates, CONDITIONS, gate).await;
    let body = Some(gradual("greeting", 2));
    let refused = app.rest("POST", "/v1/deployments", body).await;
    assert_eq!(refused.json()["reason"], "CORRUPT_ROW", "{refused:?}");
    let approve = format!("/v1/deployments/{pending}/approve");
    answers_corrupt(app, "POST", &approve, CONDITIONS, gate).await;
    let now = app.get(pending).await;
    assert_eq!(now["status"], "DEPLOYMENT_STATUS_PENDING_APPROVAL");
    assert_eq!(set_aside(&app.address, CONDITIONS).await, "1");
}

/// A gate that can't be read is not passed by leaving it out.
async fn a_corrupt_gate(storage: Storage) {
    let app = App::start(storage).await;
    let mut database = Database::of(app.settings()).await;
    let gate = app
        .rest("POST", "/v1/quality-gates", Some(custom_gate("greeting")))
        .await;
    let gate = gate.json()["quality_gate"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut body = gradual("greeting", 1);
    body["skip_approval"] = json!(false);
    let pending = id(&app.create(body).await);
    let approve = format!("/v1/deployments/{pending}/approve");
    let of = format!("WHERE gate_id = {}", database.id(&gate));
    let mut ways = vec![
        ("operator", "'neq'"),
        ("type", "'vibes'"),
        ("url", "'ftp:/'"),
    ];
    match storage {
        Storage::SqliteFile => ways.push(("threshold", "'high'")),
        Storage::Postgres => ways.push(("threshold", "'NaN'")),
        Storage::Memory => {}
    }
    let table = CONDITIONS;
    // The last one is a gate that has lost what it measures.
    ways.push(("gate_id", ""));
    for (round, (column, value)) in ways.into_iter().enumerate() {
        let keep = format!("CREATE TABLE as_it_was AS SELECT * FROM {table} {of}");
        let spoil = if value.is_empty() {
            format!("DELETE FROM {table} {of}")
        } else {
            format!("UPDATE {table} SET {column} = {value} {of}")
        };
        database.change(&format!("{keep}; {spoil}")).await;
        is_not_passed(&app, &gate, &pending).await;
        let other = app.create(gradual(&format!("other-{round}"), 1)).await;
        assert_eq!(other["status"], "DEPLOYMENT_STATUS_IN_PROGRESS");
        let one_more = app
            .rest("POST", "/v1/quality-gates", Some(custom_gate("other")))
            .await;
        assert_eq!(one_more.status, 201);
        database
            .change(&format!(
                "DELETE FROM {table} {of} AND EXISTS (SELECT * FROM as_it_was); \
             INSERT INTO {table} SELECT * FROM as_it_was; DROP TABLE as_it_was"
            ))
            .await;
        let listed = app
            .rest("GET", "/v1/quality-gates?prompt_id=greeting", None)
            .await;
        assert_eq!(
            listed.json()["quality_gates"].as_array().unwrap().len(),
            1,
            "{column}"
        );
        assert_eq!(set_aside(&app.address, table).await, "0", "{column}");
    }
    let total = app
        .rest("GET", "/v1/deployments?prompt_id=greeting", None)
        .await;
    assert_eq!(
        total.json()["total_count"],
        1,
        "what was refused was not created"
    );
    let approved = app.rest("POST", &approve, Some(json!({}))).await;
    assert_eq!(approved.status, 200, "{approved:?}");
    app.finish().await;
}

on_lasting_storage!(a_gate_that_cant_be_read_is_not_passed, a_corrupt_gate);

fn at_once(prompt: &str, version: i32) -> Value {
    json!({"prompt_id": prompt, "environment": "production", "to_version": version,
        "strategy": {"type": "DEPLOYMENT_TYPE_IMMEDIATE"}, "skip_approval": true})
}

/// That `greeting` is served as it was known and can't be changed, and another prompt can.
async fn is_served_on(service: &Binary) {
    assert_eq!(version(service, "greeting").await, (200, json!(1)));
    for _ in 0..2 {
        let body = at_once("greeting", 2);
        let refused = http::post(&service.address, "/v1/deployments", &body).await;
        let refused = refused.unwrap().json();
        assert_eq!(refused["reason"], "CORRUPT_ROW", "{refused}");
    }
    service.post("/v1/deployments", at_once("other", 2)).await;
    assert_eq!(version(service, "other").await, (200, json!(2)));
    assert_eq!(set_aside(&service.address, "traffic").await, "1");
}

/// That a service that has just started does not say what is served of `greeting`, and counts nothing
/// for it; another prompt is served and counted.
async fn is_not_guessed(service: &Binary, round: &str) {
    assert_eq!(version(service, "greeting").await, (503, Value::Null));
    assert_eq!(version(service, "other").await, (200, json!(2)));
    let listed = http::get(&service.address, "/v1/environments/production/traffic").await;
    let listed = listed.unwrap().json();
    assert_eq!(listed["traffic"].as_array().unwrap().len(), 1, "{listed}");
    let outcomes = [("greeting", 1), ("other", 2)].map(|(prompt, version)| {
        let mut outcome = outcome(&format!("{prompt}-{round}"), version, "ada");
        outcome["prompt_id"] = json!(prompt);
        outcome
    });
    let body = json!({"outcomes": outcomes});
    let reported = service.post("/v1/outcomes", body).await;
    assert_eq!(reported["accepted"], 1, "{reported}");
    assert_eq!(
        reported["refused"][0]["reason"], "CORRUPT_ROW",
        "{reported}"
    );
}

/// What is served is served on; what can't be known is not guessed.
async fn a_corrupt_split(storage: Storage) {
    let files = tempfile::tempdir().unwrap();
    let settings = settings(storage, files.path()).await;
    let mut database = None;
    let mut service = Binary::start(&settings);
    service.wait_until_ready().await;
    for prompt in ["greeting", "other"] {
        service.post("/v1/deployments", at_once(prompt, 1)).await;
    }
    let greeting = "WHERE prompt_id = 'greeting'";
    let halves = [
        "stable_deployment_id = NULL",
        "stable_version = 0",
        "candidate_version = 7",
    ];
    for half in halves {
        let database = match &mut database {
            Some(database) => database,
            none @ None => none.insert(Database::of(&settings).await),
        };
        database.change(&format!(
            "CREATE TABLE as_it_was AS SELECT * FROM traffic {greeting}; UPDATE traffic SET {half} {greeting}"
        )).await;
        is_served_on(&service).await;
        assert_eq!(alarms(service), ["traffic"], "{half}");

        service = Binary::start(&settings);
        service.wait_until_ready().await;
        is_not_guessed(&service, half).await;
        database.change(&format!(
            "DELETE FROM traffic {greeting}; INSERT INTO traffic SELECT * FROM as_it_was; DROP TABLE as_it_was"
        )).await;
        until("it is not read again", async || {
            version(&service, "greeting").await == (200, json!(1))
        })
        .await;
        assert_eq!(set_aside(&service.address, "traffic").await, "0");
    }
    if let Some(database @ Database::Sqlite(_)) = &mut database {
        database
            .change("UPDATE traffic_revisions SET revision = 'many'")
            .await;
        alarms(service);
        service = Binary::start(&settings);
        service.wait_until_ready().await;
        assert_eq!(version(&service, "greeting").await, (200, json!(1)));
    }
    assert_eq!(version(&service, "other").await, (200, json!(2)));
}

on_lasting_storage!(a_split_that_cant_be_read_is_not_guessed, a_corrupt_split);

async fn version(service: &Binary, prompt: &str) -> (u16, Value) {
    let path = format!("/v1/environments/production/prompts/{prompt}/version?targeting_key=ada");
    let answer = http::get(&service.address, &path).await.unwrap();
    (answer.status, answer.json()["version"].clone())
}

/// Stops a process; returns the tables of which it has said that they have a row that can't be read.
fn alarms(mut service: Binary) -> Vec<Value> {
    service.terminate();
    assert!(service.wait().success());
    let lines = service.remaining_lines();
    let alarms = lines.iter().filter(|line| line["level"] == "ERROR");
    alarms.map(|line| line["table"].clone()).collect()
}

/// What a deployment does while it can't be read is one line in the log, and no more.
async fn one_alarm(storage: Storage) {
    let files = tempfile::tempdir().unwrap();
    let settings = settings(storage, files.path()).await;
    let service = Binary::start(&settings);
    service.wait_until_ready().await;
    let mut rollout = gradual("greeting", 1);
    rollout["strategy"]["interval_seconds"] = json!(1);
    let created = service.post("/v1/deployments", rollout.clone()).await;
    let bad = id(&created["deployment"]);
    let mut database = Database::of(&settings).await;
    let of = format!("WHERE deployment_id = {}", database.id(&bad));
    let spoil = format!("UPDATE deployment_strategies SET type = 'TELEPORT' {of}");
    database.change(&spoil).await;
    until("it is not found", async || {
        set_aside(&service.address, "deployment_strategies").await == "1"
    })
    .await;
    rollout["prompt_id"] = json!("other");
    let other = service.post("/v1/deployments", rollout).await;
    // Meanwhile it would have been due a few times.
    let path = format!("/v1/deployments/{bad}");
    service
        .deployment_becomes(&id(&other["deployment"]), |deployment| {
            deployment["rollout"]["current_percentage"].as_i64() >= Some(15)
        })
        .await;
    assert_eq!(
        http::get(&service.address, &path).await.unwrap().status,
        500
    );
    assert_eq!(alarms(service), ["deployment_strategies"]);
}

on_lasting_storage!(a_row_that_cant_be_read_is_one_alarm, one_alarm);

/// Rows of a table that are spoilt for a while.
struct Spoilt {
    table: &'static str,
    column: &'static str,
    of: String,
}

impl Spoilt {
    async fn new(
        database: &mut Database,
        (table, column, bad): Poison,
        of: impl Into<String>,
    ) -> Self {
        let of = of.into();
        let keep =
            format!("CREATE TABLE as_it_was AS SELECT {column} AS value FROM {table} WHERE {of}");
        database
            .change(&format!(
                "{keep}; UPDATE {table} SET {column} = {bad} WHERE {of}"
            ))
            .await;
        Self { table, column, of }
    }

    async fn put_right(self, database: &mut Database, of: &str) {
        let Self { table, column, .. } = self;
        let of = if of.is_empty() { self.of.as_str() } else { of };
        database
            .change(&format!(
                "UPDATE {table} SET {column} = (SELECT value FROM as_it_was LIMIT 1) WHERE {of}; \
             DROP TABLE as_it_was"
            ))
            .await;
    }
}

/// Outcomes of `greeting`, by these ids, of the units of these names, and one of another prompt.
fn outcomes(named: &[(&str, &str)]) -> Value {
    let mut other = outcome(&format!("beside {}", named[0].0), 1, "ada");
    other["prompt_id"] = json!("other");
    let of_greeting = named.iter().map(|(id, unit)| {
        let mut outcome = outcome(id, 1, unit);
        outcome["latency_ms"] = json!(100);
        outcome
    });
    json!({"outcomes": of_greeting.chain([other]).collect::<Vec<_>>()})
}

/// What was accepted of a report, and the places of what was refused since a row can't be read.
async fn reported(app: &App, body: Value) -> (i64, Vec<i64>) {
    let reported = report(app, body).await;
    let refused = reported["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refused| {
            assert_eq!(refused["reason"], "CORRUPT_ROW", "{refused}");
            refused["index"].as_i64().unwrap()
        });
    (reported["accepted"].as_i64().unwrap(), refused.collect())
}

fn scored(id: &str) -> Value {
    json!({"scores": [{"outcome_id": id, "quality_score": 0.5}]})
}

/// What all of a stage is counted in: nothing of it is taken, and it is not judged by the rest.
async fn in_a_stage(app: &App, database: &mut Database, rollout: &str) {
    let status = format!("/v1/deployments/{rollout}/status");
    let scope = database.id(rollout);
    let cohort = Spoilt::new(
        database,
        ("cohorts", "share", "300"),
        format!("rollout = {scope}"),
    )
    .await;
    assert_eq!(
        reported(app, outcomes(&[("a", "user-1")])).await,
        (1, vec![0])
    );
    assert_eq!(reported(app, scored("call-2")).await, (0, vec![0]));
    assert_eq!(app.rest("GET", &status, None).await.status, 500);
    app.advance(minutes(1)).await;
    assert_eq!(set_aside(&app.address, "cohorts").await, "1");
    cohort.put_right(database, "").await;
    assert_eq!(percentage(app, rollout).await, 50);
    assert_eq!(
        reported(app, outcomes(&[("a", "user-1")])).await,
        (1, vec![])
    );
    assert_eq!(set_aside(&app.address, "cohorts").await, "0");
}

/// What is known of a unit and of an outcome.
async fn of_one(app: &App, database: &mut Database, rollout: &str) {
    let scope = database.id(rollout);
    // What is known of a unit: the others count.
    let unit = format!(
        "scope = {scope} AND unit = {}",
        database.id(&digest(&["user-0"]).to_string())
    );
    let unit = Spoilt::new(database, ("cohort_units", "side", "'LEFT'"), unit).await;
    let both = [("b", "user-0"), ("c", "user-1")];
    assert_eq!(reported(app, outcomes(&both)).await, (2, vec![0]));
    unit.put_right(database, "").await;
    assert_eq!(reported(app, outcomes(&both)).await, (1, vec![]));

    // An outcome: it is known, and gets no score.
    let stored = format!("id = {}", database.id(&digest(&["a"]).to_string()));
    let stored = Spoilt::new(database, ("outcomes", "side", "'LEFT'"), stored).await;
    assert_eq!(
        reported(app, outcomes(&[("a", "user-1")])).await,
        (0, vec![])
    );
    assert_eq!(reported(app, scored("a")).await, (0, vec![0]));
    stored.put_right(database, "").await;
    assert_eq!(reported(app, scored("a")).await, (1, vec![]));
}

/// What a side adds up to: it is taken in, and not judged by.
async fn in_a_sum(app: &App, database: &mut Database, rollout: &str) {
    let status = format!("/v1/deployments/{rollout}/status");
    let scope = database.id(rollout);
    let bad = ("cohort_sums", "side", "'LEFT'");
    let of = format!(
        "side = 'CANDIDATE' AND cohort_id IN (SELECT id FROM cohorts WHERE rollout = {scope})"
    );
    let sums = Spoilt::new(database, bad, of).await;
    assert_eq!(
        reported(app, outcomes(&[("d", "newcomer")])).await,
        (2, vec![])
    );
    assert_eq!(app.rest("GET", &status, None).await.status, 500);
    app.advance(minutes(5)).await;
    sums.put_right(database, "side = 'LEFT'").await;
    assert_eq!(percentage(app, rollout).await, 50);
}

/// How latencies are spread, which nothing is judged by.
async fn in_a_spread(app: &App, database: &mut Database, rollout: &str) {
    let status = format!("/v1/deployments/{rollout}/status");
    let bytes = match database {
        Database::Sqlite(_) => "X'00'",
        Database::Postgres(_) => "'\\x00'",
    };
    let bad = ("cohort_latencies", "histogram", bytes);
    let spread = Spoilt::new(
        database,
        bad,
        "side = 'STABLE' AND cohort_id IN (SELECT id FROM cohorts WHERE rollout IS NOT NULL)",
    )
    .await;
    assert_eq!(
        reported(app, outcomes(&[("e", "user-1")])).await,
        (2, vec![])
    );
    let shown = app.rest("GET", &status, None).await.json();
    assert_eq!(
        shown["baseline_metrics"]["latency_p99_ms"],
        json!(0.0),
        "{shown}"
    );
    spread.put_right(database, "").await;
    let shown = app.rest("GET", &status, None).await.json();
    assert!(
        shown["baseline_metrics"]["latency_p99_ms"].as_f64() > Some(0.0),
        "{shown}"
    );
}

async fn corrupt_counts(storage: Storage) {
    let app = App::start(storage).await;
    let mut database = Database::of(app.settings()).await;
    let canary = json!({"type": "DEPLOYMENT_TYPE_CANARY", "initial_percentage": 50,
        "interval_seconds": 60, "auto_rollback": true});
    let rollout = roll_out(&app, canary).await;
    app.create(gradual("other", 1)).await;
    serve(&app, 0, 40, good).await;
    in_a_stage(&app, &mut database, &rollout).await;
    of_one(&app, &mut database, &rollout).await;
    in_a_sum(&app, &mut database, &rollout).await;
    in_a_spread(&app, &mut database, &rollout).await;
    app.advance(minutes(5)).await;
    assert!(
        app.get(&rollout).await["status_message"]
            .as_str()
            .unwrap()
            .starts_with("held")
    );
    app.finish().await;
}

on_lasting_storage!(
    outcomes_are_counted_beside_rows_that_cant_be_read,
    corrupt_counts
);

/// SQLite keeps in a column whatever it is given, also where work is noted.
#[tokio::test(flavor = "multi_thread")]
async fn work_that_cant_be_read_is_put_off_and_the_rest_is_done() {
    let app = App::start(Storage::SqliteFile).await;
    let mut database = Database::of(app.settings()).await;
    let bad = id(&app.create(gradual("greeting", 1)).await);
    let good = id(&app.create(gradual("other", 1)).await);
    let of = format!("deployment_id = {}", database.id(&bad));
    for (column, value) in [
        ("lease_epoch", "'x'"),
        ("failures", "'many'"),
        ("due_at", "''"),
    ] {
        let (of_bad, of_good) = (percentage(&app, &bad).await, percentage(&app, &good).await);
        let work = Spoilt::new(
            &mut database,
            ("deployment_work", column, value),
            of.as_str(),
        )
        .await;
        app.advance(minutes(1)).await;
        assert_eq!(percentage(&app, &good).await, of_good + 5, "{column}");
        assert_eq!(percentage(&app, &bad).await, of_bad, "{column}");
        assert_eq!(
            set_aside(&app.address, "deployment_work").await,
            "1",
            "{column}"
        );
        work.put_right(&mut database, "").await;
        app.advance(minutes(5)).await;
        assert_eq!(percentage(&app, &bad).await, of_bad + 5, "{column}");
        assert_eq!(
            set_aside(&app.address, "deployment_work").await,
            "0",
            "{column}"
        );
    }
    app.finish().await;
}
