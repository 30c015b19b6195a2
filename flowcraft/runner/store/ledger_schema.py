"""The tables of the ledger as SQL, one script per version; the database knows its version as `user_version`.

runs    one execution of a pipeline; `number` is the order in which they began, whatever the clock said; `turn` the
        order of their latest sessions; one that was `replayed` has its answers from a recording
stages  how each stage of a run ended, with its fingerprint; `started` is a command whose end nobody has seen,
        `interrupted` one that was stopped with the run
calls   one row per attempt at a model, committed before the request leaves; `started` without an end is
        "maybe billed". `key` is the hash of all that reaches the model. Money is text, because it is
        decimal. Calls up to `last_call` of their stage are part of its outcome.
kept    results for other runs, and for this one should an edit be undone, of stages that have since ended otherwise

The rows of stages and calls are numbered run by run (`of_run`), in the order in which they were written: those of a run
lie side by side and are found without an index, which would be one page more to write with every row. There is one
row for each path of a run; one process at a time writes them, and knows their numbers.

A script is never changed once it was released: the next version is a new script at the end.
"""

APPLICATION_ID = 0x466C6F77  # "Flow"

_FIRST = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    pipeline TEXT NOT NULL,
    file TEXT NOT NULL,
    file_hash TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'interrupted', 'paused')),
    inputs TEXT NOT NULL,
    options TEXT NOT NULL,
    outputs TEXT,
    error TEXT,
    hint TEXT,
    started TEXT NOT NULL,
    ended TEXT,
    seconds REAL NOT NULL DEFAULT 0,
    sessions INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE stages (
    number INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    path TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('started', 'succeeded', 'failed', 'skipped')),
    fingerprint TEXT,
    parts TEXT,
    reusable INTEGER NOT NULL DEFAULT 0,
    why TEXT,
    last_call INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    UNIQUE (run, path)
);
CREATE INDEX stages_to_reuse ON stages (fingerprint) WHERE reusable;
CREATE TABLE calls (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    run INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    path TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('started', 'answered', 'failed')),
    session INTEGER NOT NULL,
    event TEXT NOT NULL,
    key TEXT NOT NULL,
    choice TEXT NOT NULL,
    request TEXT NOT NULL,
    reserved TEXT NOT NULL,
    started TEXT NOT NULL,
    seconds REAL,
    usd TEXT,
    usage TEXT,
    response TEXT,
    rejected TEXT,
    error TEXT,
    retry_after_s REAL,
    ended TEXT
);
CREATE INDEX calls_of_stage ON calls (run, path);
"""

# Runs that were rejected or replayed, commands that were stopped. SQLite changes no CHECK: the tables are made anew,
# which must not delete what refers to them (foreign keys are off meanwhile).
_SECOND = """
CREATE TABLE runs_2 (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    pipeline TEXT NOT NULL,
    file TEXT NOT NULL,
    file_hash TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'interrupted', 'paused', 'rejected')),
    inputs TEXT NOT NULL,
    options TEXT NOT NULL,
    outputs TEXT,
    error TEXT,
    hint TEXT,
    started TEXT NOT NULL,
    ended TEXT,
    seconds REAL NOT NULL DEFAULT 0,
    sessions INTEGER NOT NULL DEFAULT 1,
    replayed INTEGER NOT NULL DEFAULT 0
);
INSERT INTO runs_2 SELECT *, 0 FROM runs;
DROP TABLE runs;
ALTER TABLE runs_2 RENAME TO runs;
CREATE TABLE stages_2 (
    number INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    path TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('started', 'interrupted', 'succeeded', 'failed', 'skipped')),
    fingerprint TEXT,
    parts TEXT,
    reusable INTEGER NOT NULL DEFAULT 0,
    why TEXT,
    last_call INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    UNIQUE (run, path)
);
INSERT INTO stages_2 SELECT * FROM stages;
DROP TABLE stages;
ALTER TABLE stages_2 RENAME TO stages;
CREATE INDEX stages_to_reuse ON stages (fingerprint) WHERE reusable;
"""

# A result that was paid for outlives the next end of its stage.
_THIRD = """
CREATE TABLE kept (
    number INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    fingerprint TEXT NOT NULL,
    outcome TEXT NOT NULL
);
CREATE INDEX kept_to_reuse ON kept (fingerprint);
CREATE INDEX kept_of_run ON kept (run);
"""

# Rows find their run by their number. Their order over all runs goes on as `turn`, which every session begins anew.
_FOURTH = """
ALTER TABLE runs ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
UPDATE runs SET turn = (SELECT ifnull(max(stages.number), 0) FROM stages WHERE stages.run = runs.number);
CREATE INDEX runs_in_turn ON runs (turn);
CREATE TABLE stages_4 (
    number INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    path TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('started', 'interrupted', 'succeeded', 'failed', 'skipped')),
    fingerprint TEXT,
    parts TEXT,
    reusable INTEGER NOT NULL DEFAULT 0,
    why TEXT,
    last_call INTEGER NOT NULL DEFAULT 0,
    turn INTEGER NOT NULL DEFAULT 0,
    outcome TEXT
);
INSERT INTO stages_4
    SELECT (run << 32) + number, run, path, kind, status, fingerprint, parts, reusable, why, last_call, number, outcome
    FROM stages ORDER BY run, number;
DROP TABLE stages;
ALTER TABLE stages_4 RENAME TO stages;
CREATE INDEX stages_to_reuse ON stages (fingerprint) WHERE reusable;
CREATE TABLE calls_4 (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    run INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    path TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('started', 'answered', 'failed')),
    session INTEGER NOT NULL,
    event TEXT NOT NULL,
    key TEXT NOT NULL,
    choice TEXT NOT NULL,
    request TEXT NOT NULL,
    reserved TEXT NOT NULL,
    started TEXT NOT NULL,
    seconds REAL,
    usd TEXT,
    usage TEXT,
    response TEXT,
    rejected TEXT,
    error TEXT,
    retry_after_s REAL,
    ended TEXT
);
INSERT INTO calls_4
    SELECT (run << 32) + number, id, run, path, state, session, event, key, choice, request, reserved, started, seconds,
        usd, usage, response, rejected, error, retry_after_s, ended
    FROM calls ORDER BY run, number;
DROP TABLE calls;
ALTER TABLE calls_4 RENAME TO calls;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _SECOND, _THIRD, _FOURTH)


def number_of(run: int, count: int) -> int:
    """The number of the row that is the `count`th of its table in a run; `last_call` is such a count."""
    return (run << 32) + count


def of_run(parameter: str = "?1") -> str:
    """SQL: whether a row of stages or calls belongs to the run whose number is `parameter`."""
    return f"number > {parameter} << 32 AND number < ({parameter} + 1) << 32"
