// graphile-worker, by its own runner.
//
//	graphile.mjs migrate
//	graphile.mjs work CLIENTS BATCH SECONDS
//
// BATCH 1: as many workers fetch and complete job by job.  Above: its batched
// mode as https://worker.graphile.org/docs/performance sets it, as many times:
// a local queue of 500 that is filled by one statement, 24 jobs at a time, and
// completions that are gathered.  Prints the jobs done, and how many a second.
import { run, runMigrations, Logger } from "graphile-worker";

const [command, clients, batch, seconds] = [process.argv[2], ...process.argv.slice(3).map(Number)];
const quiet = new Logger(() => (level, message) => { if (level === "error") console.error(message); });

if (command === "migrate") {
  await runMigrations({ logger: quiet });
} else {
  const concurrency = batch === 1 ? clients : 24 * clients;
  let jobs = 0, counted = 0, begin = null, end = null;
  const runner = await run({
    logger: quiet,
    noHandleSignals: true,
    concurrency,
    maxPoolSize: concurrency + 1,
    taskList: {
      send_email: async () => {
        jobs++;
        const now = performance.now();
        if (begin === null) { begin = now; end = now + seconds * 1000; }
        if (now < end) counted++;
      },
    },
    preset: batch === 1 ? undefined : {
      worker: { localQueue: { size: 500 * clients }, completeJobBatchDelay: 0, failJobBatchDelay: 0 },
    },
  });
  while (begin === null || performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 20));
  await runner.stop();
  console.log(JSON.stringify({ jobs, rate: (counted - 1) / seconds }));
}
