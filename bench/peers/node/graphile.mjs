// graphile-worker, by its own runner.
//
//	graphile.mjs migrate
//	graphile.mjs work CONCURRENCY BATCH SECONDS
//
// BATCH 1: every worker fetches and completes job by job.  Above: its batched
// mode, a local queue that is filled by one statement, and completions that
// are gathered.  Prints the jobs done, and how many a second.
import { run, runMigrations, Logger } from "graphile-worker";

const [command, concurrency, batch, seconds] = [process.argv[2], ...process.argv.slice(3).map(Number)];
const quiet = new Logger(() => (level, message) => { if (level === "error") console.error(message); });

if (command === "migrate") {
  await runMigrations({ logger: quiet });
} else {
  let jobs = 0, counted = 0, begin = null, end = null;
  const runner = await run({
    logger: quiet,
    noHandleSignals: true,
    concurrency,
    maxPoolSize: concurrency + 2,
    taskList: {
      send_email: async () => {
        jobs++;
        const now = performance.now();
        if (begin === null) { begin = now; end = now + seconds * 1000; }
        if (now < end) counted++;
      },
    },
    preset: batch === 1 ? undefined : {
      worker: { localQueue: { size: batch }, completeJobBatchDelay: 0, failJobBatchDelay: 0 },
    },
  });
  while (begin === null || performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 20));
  await runner.stop();
  console.log(JSON.stringify({ jobs, rate: (counted - 1) / seconds }));
}
