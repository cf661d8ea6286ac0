//! The node's plan: the newest one, on disk before it is acted upon (invariant `generation-grows`).

use crate::durable;
use baton_model::id::{Generation, NodeName};
use baton_model::plan::NodePlan;
use std::io;
use std::path::{Path, PathBuf};

/// Keeps the newest plan of this node.
#[derive(Debug)]
pub(crate) struct PlanStore {
    path: PathBuf,
    node: NodeName,
    current: Option<NodePlan>,
}

/// What became of a plan that was offered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is on disk and is now the current one.
    Accepted,
    /// It is the current one already.
    Same,
    /// It was refused, for this reason.
    Refused(String),
}

impl PlanStore {
    /// Opens the store with what an earlier agent accepted.
    ///
    /// # Errors
    /// What the file system says; a damaged plan is an error too, since going on with none would stop everything.
    pub(crate) fn open(path: &Path, node: &NodeName) -> io::Result<Self> {
        let current: Option<NodePlan> = durable::read_json(path)?;
        if let Some(plan) = current.as_ref().filter(|plan| plan.node != *node) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is the plan of node `{}`, this is `{node}`", path.display(), plan.node),
            ));
        }
        Ok(Self { path: path.to_owned(), node: node.clone(), current })
    }

    /// The current plan; `None` before the first.
    pub(crate) fn current(&self) -> Option<&NodePlan> {
        self.current.as_ref()
    }

    /// Its generation; zero before the first.
    pub(crate) fn generation(&self) -> Generation {
        self.current.as_ref().map(|plan| plan.generation).unwrap_or_default()
    }

    /// Takes `plan` if it is newer, and writes it before it returns.
    ///
    /// # Errors
    /// When it could not be written: the current plan then stays.
    pub(crate) fn offer(&mut self, plan: NodePlan) -> io::Result<Offered> {
        if plan.node != self.node {
            return Ok(Offered::Refused(format!(
                "it is the plan of node `{}`, this is `{}`",
                plan.node, self.node
            )));
        }
        if let Some(current) = &self.current {
            if plan.generation < current.generation {
                return Ok(Offered::Refused(format!(
                    "its generation {} is older than {}, which this node already follows",
                    plan.generation, current.generation
                )));
            }
            if plan.generation == current.generation {
                return Ok(if plan == *current {
                    Offered::Same
                } else {
                    Offered::Refused(format!(
                        "it differs from the plan that this node already has under generation {}",
                        plan.generation
                    ))
                });
            }
        }
        durable::replace_json(&self.path, &plan)?;
        self.current = Some(plan);
        Ok(Offered::Accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn plan(node: &str, generation: u64) -> NodePlan {
        NodePlan {
            node: node.parse().unwrap(),
            generation: Generation(generation),
            instances: BTreeMap::new(),
        }
    }

    #[test]
    fn only_newer_plans_of_this_node_are_taken_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let node = "n1".parse().unwrap();
        let mut store = PlanStore::open(&path, &node).unwrap();
        assert_eq!(store.generation(), Generation(0));
        assert_eq!(store.offer(plan("n1", 3)).unwrap(), Offered::Accepted);
        assert_eq!(store.offer(plan("n1", 3)).unwrap(), Offered::Same);
        assert!(
            matches!(store.offer(plan("n1", 2)).unwrap(), Offered::Refused(why) if why.contains("older than 3"))
        );
        assert!(matches!(store.offer(plan("n2", 9)).unwrap(), Offered::Refused(why) if why.contains("`n2`")));

        let again = PlanStore::open(&path, &node).unwrap();
        assert_eq!(again.current(), Some(&plan("n1", 3)));
        assert!(PlanStore::open(&path, &"n2".parse().unwrap()).is_err());
    }

    #[test]
    fn a_plan_that_cannot_be_written_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let mut store = PlanStore::open(&path, &"n1".parse().unwrap()).unwrap();
        store.offer(plan("n1", 1)).unwrap();
        std::fs::create_dir(folder.path().join("plan.json.new")).unwrap();
        assert!(store.offer(plan("n1", 2)).is_err());
        assert_eq!(store.generation(), Generation(1));
    }
}
