//! Takes from the service's replicas what PostgreSQL notifies them of.

use std::process::Command;

use super::query;
use crate::Failure;

/// The sessions that replicas listen in, one each.
const LISTENERS: &str =
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'";

/// Sessions whose processes stand still, as if the network had swallowed their packets; they go on
/// when this is dropped.
pub(crate) struct Silenced(Vec<String>);

/// Silences the listeners of a database. Their connections stay open, so that nobody connects
/// again.
pub(crate) async fn silence(port: u16, database: &str) -> Result<Silenced, Failure> {
    let pids = query(port, database, LISTENERS).await?;
    let pids: Vec<String> = pids.lines().map(str::to_owned).collect();
    if pids.len() != 2 {
        return Err(format!("two replicas listen in the sessions {pids:?}").into());
    }
    let silenced = Silenced(pids);
    if silenced.signal("STOP") {
        Ok(silenced)
    } else {
        Err("the listeners' sessions can't be stopped".into())
    }
}

impl Silenced {
    fn signal(&self, name: &str) -> bool {
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$@\"", "sh", name])
            .args(&self.0)
            .status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Silenced {
    fn drop(&mut self) {
        self.signal("CONT");
    }
}
