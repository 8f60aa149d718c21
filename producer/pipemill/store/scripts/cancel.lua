-- End a job as cancelled, unless it has ended; workers hear of it at once, and drop it when they meet it.
-- Or end a job as expired that nobody has started: only if its record carries a deadline, and that has passed.
-- KEYS  1 result · 2 record
-- ARGV  1 id · 2 result document · 3 result TTL (s) · 4 prefix of the cancelled sets, and of their channels · 5 kept (s)
--       6 '' to cancel, else for how long the deadline must have passed (s)
-- Reply 1 ended so · 2 it had ended · 0 unknown, or not due
-- A server without memory refuses only a script's first write, so the first takes none: work in hand is always ended.
redis.call('DEL', 'pipemill:none')
local status = string.match(redis.call('GETRANGE', KEYS[1], 0, 40), '^{"status": ?"(%u+)"')
if status == 'SUCCESS' or status == 'FAILURE' or status == 'REVOKED' then return 2 end
local record = redis.call('GET', KEYS[2])
if not record then return 0 end
local state, queue, expires = string.match(record, '^([qrp])|%d*|([^|]+)|?([%d.]*)$')
if not queue then return 2 end
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
if ARGV[6] ~= '' and (state == 'r' or expires == '' or tonumber(expires) + ARGV[6] > now) then return 0 end
-- First what a user of other queues may not do: refused half-way, nothing has happened.
redis.call('ZREMRANGEBYSCORE', ARGV[4] .. queue, '-inf', now - ARGV[5])
redis.call('ZADD', ARGV[4] .. queue, string.format('%.6f', now), ARGV[1])
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('PUBLISH', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
redis.call('EXPIRE', ARGV[4] .. queue, ARGV[5])
redis.call('PUBLISH', ARGV[4] .. queue, ARGV[1])
return 1
