-- What the bridge keeps for each upstream. `target` tells where it leads: marks of another place mean nothing.
CREATE TABLE upstream (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, target TEXT NOT NULL);

-- What the other side holds: a digest for each slot (device 0 is the gateway; kinds are in upstreams.rs).
CREATE TABLE mark (
    upstream INTEGER NOT NULL, device INTEGER NOT NULL, kind INTEGER NOT NULL, property INTEGER NOT NULL, stamp INTEGER NOT NULL,
    PRIMARY KEY (upstream, device, kind, property)
) WITHOUT ROWID;

-- Readings that wait, numbered within their class; what was given up; how far the numbers may go.
CREATE TABLE spool (
    upstream INTEGER NOT NULL, class INTEGER NOT NULL, seq INTEGER NOT NULL, device INTEGER NOT NULL, property INTEGER NOT NULL,
    payload BLOB NOT NULL, bytes INTEGER NOT NULL, born_ms INTEGER NOT NULL, wall_ms INTEGER NOT NULL,
    PRIMARY KEY (upstream, class, seq)
) WITHOUT ROWID;
CREATE TABLE spool_meta (
    upstream INTEGER NOT NULL, class INTEGER NOT NULL, floor INTEGER NOT NULL, ceiling INTEGER NOT NULL,
    PRIMARY KEY (upstream, class)
) WITHOUT ROWID;
CREATE TABLE spool_gap (
    upstream INTEGER NOT NULL, class INTEGER NOT NULL, from_seq INTEGER NOT NULL, to_seq INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (upstream, class, from_seq)
) WITHOUT ROWID;

-- What dialects remember: key → value, their own.
CREATE TABLE memory (upstream INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (upstream, key)) WITHOUT ROWID;
