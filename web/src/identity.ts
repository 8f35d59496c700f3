// Who this tab is to the server, which takes back the last action of whoever asks. Names are kept in
// this browser, so that one who closed it can still undo; a name belongs to one tab at a time.

const TAB = "histoclick.client"; // in the tab's storage
const ALL = "histoclick.clients"; // in the browser's, the last used first
const MOST = 20;
const RELOAD = 500; // ms until the page that was here before has let go of its name

type Shelf = Pick<Storage, "getItem" | "setItem">;

/**
 * The name of this tab: its own from before a reload, else the last used one that no other tab has,
 * else a new one. Without `locks`, which there are on https and localhost, other tabs' names are
 * left alone.
 */
export async function identity(
  browser: Shelf | null,
  tab: Shelf | null,
  locks: Pick<LockManager, "request"> | undefined,
  fresh: () => string,
): Promise<string> {
  const own = read(() => tab?.getItem(TAB) ?? null);
  const known = read(() => JSON.parse(browser?.getItem(ALL) ?? "[]") as unknown);
  const names = Array.isArray(known) ? known.filter((each): each is string => typeof each === "string") : [];
  let name: string | null = null;
  if (!locks) name = own;
  else {
    if (own && (await taken(locks, own, { signal: AbortSignal.timeout(RELOAD) }))) name = own;
    for (const each of names) {
      if (name !== null) break;
      if (each !== own && (await taken(locks, each, { ifAvailable: true }))) name = each;
    }
  }
  if (name === null) {
    name = fresh();
    if (locks) await taken(locks, name, {});
  }
  const mine = name;
  const next = [mine, ...names.filter((each) => each !== mine)].slice(0, MOST);
  read(() => tab?.setItem(TAB, mine));
  if (locks) read(() => browser?.setItem(ALL, JSON.stringify(next)));
  return mine;
}

/** Whether this tab has a name for itself now, as long as it lives. */
function taken(locks: Pick<LockManager, "request">, name: string, options: LockOptions): Promise<boolean> {
  return new Promise((resolve) => {
    const hold = (lock: Lock | null) => {
      resolve(lock !== null);
      return lock === null ? null : new Promise<never>(() => {});
    };
    locks.request(`${TAB}.${name}`, options, hold).catch(() => resolve(false)); // it has waited long
  });
}

/** What storage says, or `null` where it is forbidden, full or not ours. */
function read<T>(ask: () => T): T | null {
  try {
    return ask();
  } catch {
    return null;
  }
}
