// pg-boss with a job in each of three queues, all of which time out once.
//
//	pgboss.mjs migrate
//	pgboss.mjs work			until the three are done
//
// "patient" retries after a second, "rash" at once, as is pg-boss's default,
// and in "stuck" nobody reports: the supervisor finds the job expired.
import { PgBoss } from "pg-boss";

const boss = new PgBoss({
  host: process.env.PGHOST, port: Number(process.env.PGPORT), user: process.env.PGUSER, database: process.env.PGDATABASE,
  max: 4, supervise: false, schedule: false,
});
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const next = async (queue) => {
  for (;;) {
    const [job] = await boss.fetch(queue);
    if (job) return job;
    await sleep(50);
  }
};
boss.on("error", (error) => { console.error(error); process.exit(1); });
await boss.start();

if (process.argv[2] === "migrate") {
  await boss.createQueue("patient", { retryLimit: 2, retryDelay: 1 });
  await boss.createQueue("rash", { retryLimit: 2, retryDelay: 0 });
  await boss.createQueue("stuck", { retryLimit: 2, retryDelay: 1, expireInSeconds: 1 });
} else {
  for (const queue of ["patient", "rash"]) {
    await boss.send(queue, { to: "a@example.com" }, { singletonKey: "prospect-7ca677ed25d3" });
    const job = await next(queue);
    await sleep(20);
    await boss.fail(queue, job.id, Object.assign(new Error("no answer in 20 ms"), { name: "TimeoutError" }));
    await boss.complete(queue, (await next(queue)).id);
  }
  await boss.send("stuck", { to: "b@example.com" });
  await next("stuck");
  await sleep(1200);
  await boss.supervise("stuck");
  await boss.complete("stuck", (await next("stuck")).id);
}
await boss.stop({ graceful: false });
