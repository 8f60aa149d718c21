-- Move up to n jobs into the owner's lease, most urgent first; extend the lease; bring parked jobs back that are due.
-- A job that was delivered before (first byte 1) is leased alone, so that a crash can't be blamed on others.
-- KEYS  1 lease hash · 2 inbox · 3 leases · 4 sequence · 5 delayed · 6 counters · 7 cancelled
--       8.. the queue's lists, most urgent first
-- ARGV  1 owner · 2 lease (s) · 3 n · 4 cancellations after (s since the epoch) · 5 the lists' steps, comma-separated
--       6 jobs that the owner's process holds from other queues
-- Reply {server time, 1 if the lease stood until now, 1 if a redelivered job waits for the lease to be empty,
--        {cancelled ids}, {field, message, ...}}
-- A server without memory refuses only a script's first write, so the first takes none: work in hand is always ended.
redis.call('DEL', 'pipemill:none')
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local n, held = tonumber(ARGV[3]), redis.call('HLEN', KEYS[1]) + ARGV[6]
local steps = {}
for step in string.gmatch(ARGV[5], '%d+') do steps[#steps + 1] = step end

local stood = redis.call('ZADD', KEYS[3], now + ARGV[2], ARGV[1]) == 0 and 1 or 0

local due = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, math.max(n, 1))
for i = #due, 1, -1 do
  local step, message = string.match(due[i], '^(%d+)|(.*)$')
  for k = 1, #steps do
    if steps[k] == step then redis.call('RPUSH', KEYS[7 + k], message) end
  end
  redis.call('ZREM', KEYS[5], due[i])
end

-- A sequence that starts at the clock never repeats, even when the server has lost its data.
if redis.call('EXISTS', KEYS[4]) == 0 then redis.call('SET', KEYS[4], clock[1] .. '000000') end

-- Leased first, removed from the list second: a script that stops half-way loses nothing.
local jobs, waiting, full = {}, 0, false
local function lease(source, step)
  local room = n - #jobs / 2
  if full or room <= 0 then return end
  local messages = redis.call('LRANGE', source, -room, -1)
  local fresh = {}
  for i = #messages, 1, -1 do
    local redelivered = string.byte(messages[i], 1) == 1
    if redelivered and held > 0 then
      waiting, full = 1, true
      break
    end
    fresh[#fresh + 1] = messages[i]
    held = held + 1
    if redelivered then
      full = true
      break
    end
  end
  if #fresh == 0 then return end
  local sequence = redis.call('INCRBY', KEYS[4], #fresh) - #fresh
  for i = 1, #fresh do
    local field = string.format('%.0f|%s', sequence + i, step)
    redis.call('HSET', KEYS[1], field, fresh[i])
    jobs[#jobs + 1] = field
    jobs[#jobs + 1] = fresh[i]
  end
  redis.call('LTRIM', source, 0, -#fresh - 1)
end

-- With empty hands, a redelivered job comes first: it would wait for ever behind a steady trickle of others.
local function suspect(source)
  return held == 0 and string.byte(redis.call('LINDEX', source, -1) or '', 1) == 1
end
if suspect(KEYS[2]) then lease(KEYS[2], steps[1]) end
for k = 1, #steps do
  if suspect(KEYS[7 + k]) then lease(KEYS[7 + k], steps[k]) end
end

lease(KEYS[2], steps[1])
for k = 1, #steps do lease(KEYS[7 + k], steps[k]) end
if #jobs > 0 then redis.call('HINCRBY', KEYS[6], 'taken', #jobs / 2) end

local cancelled = redis.call('ZRANGEBYSCORE', KEYS[7], '(' .. ARGV[4], '+inf')
return {string.format('%.6f', now), stood, waiting, cancelled, jobs}
