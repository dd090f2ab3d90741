// graphile-worker with two jobs, one of which times out at its first attempt.
//
//	graphile.mjs migrate
//	graphile.mjs work		until both are done
import { run, runMigrations, makeWorkerUtils, Logger } from "graphile-worker";

const logger = new Logger(() => (level, message) => { if (level === "warning") console.error(message); });

if (process.argv[2] === "migrate") {
  await runMigrations({ logger });
} else {
  const utils = await makeWorkerUtils({ logger });
  await utils.addJob("send_email", { to: "a@example.com" }, { jobKey: "well" });
  await utils.addJob("send_email", { to: "b@example.com", silent: true }, { jobKey: "silent" });
  await utils.release();
  let done = 0;
  const runner = await run({
    logger, noHandleSignals: true, concurrency: 2, pollInterval: 100,
    taskList: {
      send_email: async (payload, { job }) => {
        if (payload.silent && job.attempts === 1)
          await new Promise((_, reject) => setTimeout(() => reject(new Error("TimeoutError: no answer in 100 ms")), 100));
        done++;
      },
    },
  });
  while (done < 2) await new Promise((resolve) => setTimeout(resolve, 20));
  await runner.stop();
}
