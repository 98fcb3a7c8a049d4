-- Two years of visits of a small site: more by day than by night, more from week to week.
CREATE TABLE acessos (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    momento timestamptz NOT NULL DEFAULT now()
);
SELECT setseed(0.5);
INSERT INTO acessos (momento)
SELECT hour + random() * interval '1 hour'
  FROM generate_series(
           now() - interval '90 days', now() - interval '1 hour', interval '1 hour') AS hour,
       generate_series(1, (
           4 + 25 * (1 + sin((extract(hour FROM hour) - 9) * pi() / 12))
           * (0.4 + 0.6 * extract(epoch FROM hour - now() + interval '90 days') / 7776000)
           * CASE WHEN extract(isodow FROM hour) > 5 THEN 0.6 ELSE 1 END
           * (0.7 + 0.6 * random()))::int)
UNION ALL
SELECT minute + random() * interval '59 seconds'
  FROM generate_series(
           now() - interval '58 minutes', now() - interval '1 minute', interval '1 minute'
       ) AS minute,
       generate_series(1, (1 + 9 * random() * (1 + sin(extract(minute FROM minute) / 9)))::int)
UNION ALL
SELECT day + random() * interval '1 day'
  FROM generate_series(
           now() - interval '640 days', now() - interval '91 days', interval '1 day') AS day,
       generate_series(1, (
           20 + 200 * extract(epoch FROM day - now() + interval '640 days') / 86400 / 640)::int);
