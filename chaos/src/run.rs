//! One run: everything is started, goes wrong, comes to rest, and is checked.

use std::{sync::Arc, time::Duration};

use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure,
    check::{self, Violation},
    clients::{self, Answer, Call, Caller, Done, History, Op},
    cluster::Cluster,
    nemesis::{self, Tally},
    observer,
    plan::Plan,
    report::{self, Figures},
};

/// How long a run may go wrong, for each kill that it is to have.
const PATIENCE_PER_KILL: Duration = Duration::from_secs(20);
/// How long everything may take to come to rest, once nothing goes wrong any more.
const REST_MAX: Duration = Duration::from_secs(120);

/// Makes a run; says whether it went as it should.
pub(crate) async fn run(plan: Plan) -> Result<bool, Failure> {
    report::begin(&plan);
    let began = Instant::now();
    let bug = plan.bug.clone().unwrap_or_default();
    let cluster = Arc::new(Cluster::start(&plan.programs, &bug).await?);
    let history = History::new();
    let rng = StdRng::seed_from_u64(plan.seed);
    let mut caller = Caller::new(plan.teams, &cluster, history.clone(), rng, plan.share)?;
    clients::create_gates(&mut caller, &plan).await?;
    let tally = Arc::new(Tally::default());

    let mut went = go_wrong(&cluster, &plan, &history, &tally).await?;
    let again = sent_again(&mut caller, &history.ops()).await;
    went.violations.extend(again);
    let ops = history.ops();
    let found = check::check(&cluster, &ops).await?;
    let wrong = std::mem::take(&mut *tally.wrong.lock().await);
    let wrong = wrong.into_iter().map(|what| Violation::of("I8", what));
    let mut violations = went.violations;
    violations.extend(found.violations);
    violations.extend(wrong);
    let missed = report::missed_goals(&tally).await;
    if plan.goals {
        let missed = missed.iter().cloned();
        violations.extend(missed.map(|what| Violation::of("I8", what)));
    }

    let commits_cut = cluster.members.iter().map(|it| it.database.commits_cut());
    let figures = Figures {
        took: began.elapsed(),
        deployments: found.deployments,
        events: found.events,
        outcomes: found.outcomes,
        dropped: went.dropped,
        looks: went.looks,
        commits_cut: commits_cut.sum(),
    };
    report::end(&plan, &figures, &tally, &ops).await;
    for what in missed {
        report::say(&format!("goal missed: {what}"));
    }
    if !violations.is_empty() {
        let stories = stories(&cluster, &violations).await;
        report::violations(&plan, &violations, &stories, &ops);
        if plan.bug.is_none()
            && let Some(mut cluster) = Arc::into_inner(cluster)
            && let Some(logs) = cluster.keep_logs()
        {
            let logs = logs.display();
            report::say(&format!("what the replicas said is kept in {logs}"));
        }
    }
    Ok(report::verdict(&plan, &violations))
}

/// What was seen while things went wrong.
struct Went {
    violations: Vec<Violation>,
    /// How many requests were dropped before they were answered.
    dropped: u64,
    /// How often the tables were looked at.
    looks: u64,
}

/// Has teams deploy while faults are made, until there were enough; then lets everything come to rest.
async fn go_wrong(
    cluster: &Arc<Cluster>,
    plan: &Plan,
    history: &History,
    tally: &Arc<Tally>,
) -> Result<Went, Failure> {
    let (stop_teams, stop_observer) = (CancellationToken::new(), CancellationToken::new());
    let mut teams = clients::start(cluster, history, plan, &stop_teams)?;
    let mut observer = JoinSet::new();
    observer.spawn(observer::run(Arc::clone(cluster), stop_observer.clone()));
    match &plan.upgrade_to {
        Some(program) => nemesis::upgrade(cluster, plan, program, tally).await?,
        None => {
            let kills = u32::try_from(plan.kills).unwrap_or(u32::MAX).max(10);
            let patience = PATIENCE_PER_KILL.saturating_mul(kills);
            let (cluster, tally) = (Arc::clone(cluster), Arc::clone(tally));
            nemesis::run(cluster, plan.clone(), tally, patience).await?;
        }
    }
    cluster.heal().await?;
    stop_teams.cancel();
    let mut dropped = 0;
    while let Some(of_team) = teams.join_next().await {
        dropped += of_team?;
    }
    let mut violations = come_to_rest(cluster).await?;
    stop_observer.cancel();
    let seen = observer.join_next().await.ok_or("nobody has observed")??;
    violations.extend(seen.violations);
    Ok(Went {
        violations,
        dropped,
        looks: seen.looks,
    })
}

/// Waits until nothing is on its way, and no session is in a transaction.
async fn come_to_rest(cluster: &Cluster) -> Result<Vec<Violation>, Failure> {
    let mut session = cluster.postgres.connect().await?;
    let until = Instant::now() + REST_MAX;
    loop {
        let on_its_way: Vec<String> = sqlx::query_scalar(
            "SELECT id::text FROM deployments WHERE status IN ('PENDING_GATES', 'IN_PROGRESS')",
        )
        .fetch_all(&mut session)
        .await?;
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE state LIKE 'idle in transaction%' AND state_change < now() - interval '2 s'",
        )
        .fetch_one(&mut session)
        .await?;
        if on_its_way.is_empty() && open == 0 {
            return Ok(Vec::new());
        }
        if Instant::now() > until {
            let stuck = on_its_way.iter().map(|id| {
                let what = "nothing goes wrong any more, and it does not end".to_owned();
                Violation::of("I8", what).about(id)
            });
            let open = (open > 0).then(|| {
                let what = format!("{open} sessions are left in a transaction");
                Violation::of("I9", what)
            });
            return Ok(stuck.chain(open).collect());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sends every report again that was acknowledged: nothing of it may count once more.
async fn sent_again(caller: &mut Caller, ops: &[Op]) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for op in ops {
        let (Call::Report(request), Answer::Done(Done::Reported(answer))) = (&op.call, &op.answer)
        else {
            continue;
        };
        let mut request = request.clone();
        let mut index = 0;
        request.outcomes.retain(|_| {
            index += 1;
            !answer
                .refused
                .iter()
                .any(|refused| refused.index == index - 1)
        });
        if request.outcomes.is_empty() {
            continue;
        }
        let again = caller.call(Call::Report(request)).await;
        let counts_once =
            matches!(&again, Answer::Done(Done::Reported(again)) if again.accepted == 0);
        if !counts_once {
            let what = format!("outcomes that were acknowledged count again: {again:?}");
            wrong.push(Violation::of("I2", what));
        }
    }
    wrong
}

async fn stories(cluster: &Cluster, violations: &[Violation]) -> Vec<String> {
    let mut stories = Vec::new();
    let mut about: Vec<&String> = violations
        .iter()
        .filter_map(|violation| violation.deployment.as_ref())
        .collect();
    about.sort();
    about.dedup();
    for id in about.into_iter().take(report::STORIES_MAX) {
        match check::story(cluster, id).await {
            Ok(story) => stories.push(format!("{id}: {story}")),
            Err(failure) => stories.push(format!("{id}: {failure}")),
        }
    }
    stories
}
