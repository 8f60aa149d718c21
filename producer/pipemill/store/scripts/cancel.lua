-- End a job as cancelled, unless it has ended; workers drop it when they meet it.
-- KEYS  1 result · 2 record
-- ARGV  1 id · 2 result document · 3 result TTL (s) · 4 prefix of the cancelled sets · 5 kept (s)
-- Reply 1 cancelled · 2 it had ended · 0 unknown
-- A server without memory refuses only a script's first write, so the first takes none: work in hand is always ended.
redis.call('DEL', 'pipemill:none')
local status = string.match(redis.call('GETRANGE', KEYS[1], 0, 40), '^{"status": ?"(%u+)"')
if status == 'SUCCESS' or status == 'FAILURE' or status == 'REVOKED' then return 2 end
local record = redis.call('GET', KEYS[2])
if not record then return 0 end
local queue = string.match(record, '^[qrp]|%d*|(.+)$')
if not queue then return 2 end
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('PUBLISH', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
redis.call('ZREMRANGEBYSCORE', ARGV[4] .. queue, '-inf', now - ARGV[5])
redis.call('ZADD', ARGV[4] .. queue, string.format('%.6f', now), ARGV[1])
redis.call('EXPIRE', ARGV[4] .. queue, ARGV[5])
return 1
