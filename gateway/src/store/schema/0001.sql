CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- Names are long and repeat; rows and journal carry these numbers instead.
CREATE TABLE device (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE property (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- Reported values: one row a device, and the changes since, one row (or a few) a flush. See leaves.rs for the bodies.
CREATE TABLE base (device INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE journal (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);

-- Desired values, cleared ones too: JSON of protocols::twin::Leaf.
CREATE TABLE desired (
    device INTEGER NOT NULL, property INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (device, property)
) WITHOUT ROWID;

-- What the broker keeps.
CREATE TABLE retained (
    topic TEXT PRIMARY KEY, payload BLOB NOT NULL, qos INTEGER NOT NULL, retain INTEGER NOT NULL,
    properties BLOB NOT NULL, subscription_ids TEXT NOT NULL, expires_ms INTEGER, at_ms INTEGER NOT NULL
);
CREATE TABLE session (client TEXT PRIMARY KEY, user TEXT, expiry_s INTEGER NOT NULL, absent_since_ms INTEGER)
    WITHOUT ROWID;
CREATE TABLE subscription (
    client TEXT NOT NULL, filter TEXT NOT NULL, options INTEGER NOT NULL, subscription_id INTEGER,
    PRIMARY KEY (client, filter)
) WITHOUT ROWID;
CREATE TABLE queue (
    client TEXT NOT NULL, seq INTEGER NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL, qos INTEGER NOT NULL,
    retain INTEGER NOT NULL, properties BLOB NOT NULL, subscription_ids TEXT NOT NULL, expires_ms INTEGER,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (client, seq)
);
CREATE TABLE received (client TEXT NOT NULL, packet_id INTEGER NOT NULL, PRIMARY KEY (client, packet_id)) WITHOUT ROWID;
