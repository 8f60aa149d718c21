-- Write one field of a hash: what a queue, or a lane, says of itself.
-- KEYS  1 hash · ARGV  1 field · 2 value
-- A server without memory refuses only a script's first write, so the first takes none: work in hand is always ended.
redis.call('DEL', 'pipemill:none')
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
