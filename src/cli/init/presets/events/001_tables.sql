-- Applied once, when the collector starts. What it has done is never done again, so change nothing here once it was applied:
-- what comes later goes to 002_….sql.
--
-- Table events is there already, and holds every event that no route takes:
--     id, subject, stream, sequence, published_us, headers (JSON), payload (text, or a blob)

-- The same for eyes, the newest event first.
CREATE VIEW latest AS
SELECT id, strftime('%Y-%m-%d %H:%M:%f', published_us / 1e6, 'unixepoch') AS published, subject, payload
FROM events
ORDER BY id DESC;
