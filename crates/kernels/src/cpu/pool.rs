//! A persistent pool of threads for fork-join (first version: serial; being written).

#[derive(Debug)]
pub(crate) struct Pool {
    threads: usize,
}

impl Pool {
    pub(crate) fn new(threads: usize) -> Pool {
        Pool { threads: threads.max(1) }
    }
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }
    pub(crate) fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        for i in 0..tasks {
            task(i);
        }
    }
}
