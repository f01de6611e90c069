-- Applied once, at the collector's next start. Do not change this file after that: put later changes into 002_….sql.
--
-- Table events exists already. It has every event that no route takes:
--     id, subject, stream, sequence, published_us, headers (JSON), payload (text, or a blob)

-- The same with readable times, the newest event first.
CREATE VIEW latest AS
SELECT id, strftime('%Y-%m-%d %H:%M:%f', published_us / 1e6, 'unixepoch') AS published, subject, payload
FROM events
ORDER BY id DESC;
