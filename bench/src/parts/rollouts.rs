//! The reconciler: many rollouts on PostgreSQL that are all due each second. A rollout is due a
//! second after its last step, so what the reconciler can't keep up with shows twice: in fewer
//! steps a second, and in the lag.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::{
    Failure,
    calls::deployments::{Create, connect, gradual},
    cli::{Settings, postgres_port},
    figures::{Figures, Row},
    postgres, process, progress,
};

const PART: &str = "rollouts";
const DATABASE: &str = "rollouts";
const INTERVAL_SECONDS: i32 = 1;
/// How many rollouts are created at a time.
const CALLERS: u64 = 16;
/// From the last creation until what is measured begins.
const SETTLE: Duration = Duration::from_secs(5);

/// Measures; the ratio is to what would be taken if no step were late.
pub(crate) async fn measure(settings: &Settings) -> Result<Vec<Row>, Failure> {
    let port = postgres_port()?;
    let storage = postgres::create(port, DATABASE, settings.callers).await?;
    let server = process::service(&storage).await?;
    progress(&format!("{PART}: creating {}", settings.rollouts));
    create(server.port, settings).await?;
    tokio::time::sleep(SETTLE).await;
    progress(&format!("{PART}: measuring"));
    let begin = postgres::query(port, DATABASE, "SELECT clock_timestamp()").await?;
    tokio::time::sleep(settings.rollout_duration()).await;
    drop(server);
    let figures = steps(port, &begin, settings.rollout_duration()).await?;
    let rollouts = settings.rollouts as f64;
    let mut row = Row::new(PART, &format!("{rollouts} rollouts, a step each second"));
    row.ratio = Some(figures.per_second / rollouts);
    row.rounds.push(figures);
    Ok(vec![row])
}

/// Steps of one percent: more than a minute and a half of them.
async fn create(port: u16, settings: &Settings) -> Result<(), Failure> {
    let create = Arc::new(Create {
        strategy: gradual(1, INTERVAL_SECONDS),
        ..Create::new("rollout".into(), settings.environments)
    });
    let client = connect(port).await?;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (create, mut client) = (Arc::clone(&create), client.clone());
        let share = (settings.rollouts + caller) / CALLERS;
        callers.spawn(async move {
            for _ in 0..share {
                create.one(&mut client).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(created) = callers.join_next().await {
        created??;
    }
    Ok(())
}

/// Reads the steps off the audit trail. A step's lag is the time from when it was due, the interval
/// after the step before, to when its transaction decided it.
async fn steps(port: u16, begin: &str, duration: Duration) -> Result<Figures, Failure> {
    let seconds = duration.as_secs();
    let sql = format!(
        "SELECT count(*) / {seconds}::float, \
                percentile_cont(0.5) WITHIN GROUP (ORDER BY late_ms), \
                percentile_cont(0.99) WITHIN GROUP (ORDER BY late_ms), \
                max(late_ms) \
         FROM (SELECT action, at, \
                      extract(epoch FROM at - lag(at) OVER (PARTITION BY deployment_id ORDER BY sequence) \
                      - interval '{INTERVAL_SECONDS} s') * 1000 AS late_ms \
               FROM deployment_events) AS events \
         WHERE action = 'step' AND at >= '{begin}' AND at < '{begin}'::timestamptz + interval '{seconds} s'"
    );
    let answer = postgres::query(port, DATABASE, &sql).await?;
    let numbers: Vec<f64> = answer.split('|').flat_map(str::parse).collect();
    let [per_second, p50_ms, p99_ms, max_ms] = numbers[..] else {
        return Err(format!("no step was taken in the time that was measured: {answer}").into());
    };
    Ok(Figures {
        per_second,
        p50_ms,
        p99_ms,
        max_ms,
        own_share: None,
    })
}
