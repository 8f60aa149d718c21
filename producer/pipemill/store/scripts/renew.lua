-- Extend a lease that is still held, and say which of its jobs are running.
-- KEYS  1 leases · 2 lease hash · 3 cancelled
-- ARGV  1 owner · 2 lease (s) · 3 cancellations after (s since the epoch) · 4 record prefix · 5 record TTL (s) · 6 queue
--       then per running job: field · id
-- Reply {server time, 1 if the lease still stands, {cancelled ids}}
-- A server without memory refuses only a script's first write, so the first takes none: work in hand is always ended.
redis.call('DEL', 'pipemill:none')
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
-- A lease of 0 was none: it lets others find what came to an owner whose lease had run out.
local stands = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0) > 0 and 1 or 0
if stands == 1 then
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
  for i = 7, #ARGV, 2 do
    if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 then
      local record = ARGV[4] .. ARGV[i + 1]
      local deadline = string.match(redis.call('GET', record) or '', '^%a|%d*|[^|]+(|[%d.]+)$') or ''
      redis.call('SET', record, 'r|0|' .. ARGV[6] .. deadline, 'EX', ARGV[5])
    end
  end
end
local cancelled = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[3], '+inf')
return {string.format('%.6f', now), stands, cancelled}
