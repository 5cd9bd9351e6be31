// The export of crons.js as stored schedules (runtime.md 1.7, push.md 5.3).

/** A job that cannot be scheduled; code InvalidCron. */
export class CronError extends Error {}

const DAYS = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

function whole(value, low, high, name, where) {
  if (!Number.isInteger(value) || value < low || value > high) throw new CronError(`${name} must be ${low}-${high} in ${where}`);
  return value;
}

/** A job without a minute gets one that depends on its name only: pushes do not move it, and jobs do not all start together. */
function stableMinute(identifier) {
  let hash = 2166136261;
  for (let i = 0; i < identifier.length; i++) hash = Math.imul(hash ^ identifier.charCodeAt(i), 16777619) >>> 0;
  return hash % 60;
}

function readSchedule(schedule, identifier) {
  const { type } = schedule;
  const minute = () => (schedule.minuteUTC === undefined ? stableMinute(identifier) : whole(schedule.minuteUTC, 0, 59, "minuteUTC", `${type} schedule`));
  const hour = () => whole(schedule.hourUTC, 0, 23, "hourUTC", `${type} schedule`);
  switch (type) {
    case "interval": {
      const given = ["seconds", "minutes", "hours"].filter((unit) => schedule[unit] !== undefined);
      if (given.length !== 1) throw new CronError("Exactly one of (seconds, minutes, hours) should be specified");
      const count = schedule[given[0]];
      if (!Number.isInteger(count) || count <= 0) throw new CronError("Interval must be an integer greater than 0");
      return { type, seconds: count * { seconds: 1, minutes: 60, hours: 3600 }[given[0]] };
    }
    case "hourly":
      return { type, minuteUTC: minute() };
    case "daily":
      return { type, hourUTC: hour(), minuteUTC: minute() };
    case "weekly": {
      const dayOfWeek = DAYS.indexOf(schedule.dayOfWeek);
      if (dayOfWeek < 0) throw new CronError(`dayOfWeek must be one of ${DAYS.join(", ")} in weekly schedule`);
      return { type, dayOfWeek, hourUTC: hour(), minuteUTC: minute() };
    }
    case "monthly":
      return { type, day: whole(schedule.day, 1, 31, "day", "monthly schedule"), hourUTC: hour(), minuteUTC: minute() };
    case "cron":
      if (typeof schedule.cron !== "string") throw new CronError("A cron schedule must have a cron string");
      return { type, cronExpr: schedule.cron };
    default:
      throw new CronError(`Unknown cron schedule type: ${String(type)}`);
  }
}

/**
 * @param {object} exported parsed JSON: {identifier: {name, args, schedule}}
 * @returns {{identifier: string, name: string, args: unknown[], cronSchedule: object}[]}
 * @throws {CronError}
 */
export function readCrons(exported) {
  return Object.entries(exported).map(([identifier, { name, args, schedule }]) => {
    if (!/^[ -~]+$/.test(identifier)) {
      throw new CronError(`Invalid cron identifier ${JSON.stringify(identifier)}: cron identifiers must be printable ASCII`);
    }
    if (typeof name !== "string" || typeof schedule !== "object" || schedule === null) throw new CronError(`The cron job '${identifier}' is incomplete`);
    return { identifier, name, args: args ?? [{}], cronSchedule: readSchedule(schedule, identifier) };
  });
}
