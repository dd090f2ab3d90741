// pg-boss, by its own client.
//
//	pgboss.mjs migrate
//	pgboss.mjs fill JOBS FIRST		jobs with the payloads from number FIRST
//	pgboss.mjs work LOOPS BATCH SECONDS
//
// fetch() and complete() in loops, which its makers offer for workers of one's
// own: work() polls at most twice a second, and would lose by that alone.
// Prints the jobs done, and how many a second.
import { PgBoss } from "pg-boss";

const [command, ...args] = process.argv.slice(2);
const [first, second, third] = args.map(Number);
const queue = "bench";
const boss = new PgBoss({
  host: process.env.PGHOST, port: Number(process.env.PGPORT), user: process.env.PGUSER, database: process.env.PGDATABASE,
  max: command === "work" ? first + 1 : 4, supervise: false, schedule: false,
});
boss.on("error", (error) => { console.error(error); process.exit(1); });
await boss.start();

const payload = (n) => ({ to: `${String(n).padStart(12, "0")}@example.com`, text: "x".repeat(154) });

if (command === "migrate") {
  await boss.createQueue(queue);
} else if (command === "fill") {
  for (let n = second; n < second + first; n += 2000) {
    const jobs = Math.min(2000, second + first - n);
    await boss.insert(queue, Array.from({ length: jobs }, (_, i) => ({ data: payload(n + i) })));
  }
} else {
  let jobs = 0, dry = false;
  const begin = performance.now(), end = begin + third * 1000;
  const loop = async () => {
    while (performance.now() < end && !dry) {
      const fetched = await boss.fetch(queue, { batchSize: second });
      if (fetched.length < second) dry = true;
      if (fetched.length === 0) break;
      await boss.complete(queue, second === 1 ? fetched[0].id : fetched.map((job) => job.id));
      jobs += fetched.length;
    }
  };
  await Promise.all(Array.from({ length: first }, loop));
  if (dry) { console.error("the queue ran dry"); process.exit(3); }
  console.log(JSON.stringify({ jobs, rate: jobs / (performance.now() - begin) * 1000 }));
}
await boss.stop({ graceful: false });
