-- Take back what an owner holds whose lease ran out: to the head of the lists, delivery count raised.
-- KEYS  1 leases · 2 lease hash · 3 inbox · 4 counters · 5.. the queue's lists, most urgent first
-- ARGV  1 owner · 2 the lists' steps, comma-separated · 3 record prefix · 4 queue
-- Reply the number of jobs given back, or -1 if the lease still stands.
-- A server without memory refuses only a script's first write, so the first takes none: work in hand is always ended.
redis.call('DEL', 'pipemill:none')
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local deadline = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not deadline or tonumber(deadline) > now then return -1 end
local lists, k = {}, 5
for step in string.gmatch(ARGV[2], '%d+') do
  lists[step] = KEYS[k]
  k = k + 1
end
-- What ran waits again, and its record says so. A body is base64, so the first "id" is the header's.
local function note_waiting(message)
  local id = string.match(message, '"id": ?"([^"\\]+)"')
  if id and string.sub(redis.call('GET', ARGV[3] .. id) or '', 1, 1) == 'r' then
    redis.call('SET', ARGV[3] .. id, 'q|0|' .. ARGV[4], 'KEEPTTL')
  end
end

local waiting = redis.call('LRANGE', KEYS[3], 0, -1)
for _, message in ipairs(waiting) do
  redis.call('RPUSH', KEYS[5], message)
  redis.call('LREM', KEYS[3], 1, message)
end
local fields = redis.call('HKEYS', KEYS[2])
table.sort(fields, function(a, b) return tonumber(string.match(a, '^%d+')) > tonumber(string.match(b, '^%d+')) end)
for _, field in ipairs(fields) do
  local message = redis.call('HGET', KEYS[2], field)
  note_waiting(message)
  local count, raw = string.match(message, '^\1(%d+)\2(.*)$')
  local again = string.char(1) .. ((tonumber(count) or 0) + 1) .. string.char(2) .. (raw or message)
  redis.call('RPUSH', lists[string.match(field, '|(%d+)$')], again)
  redis.call('HDEL', KEYS[2], field)
end
if #fields > 0 then
  redis.call('HINCRBY', KEYS[4], 'redelivered', #fields)
  redis.call('HINCRBY', KEYS[4], 'taken', -#fields)
end
redis.call('ZREM', KEYS[1], ARGV[1])
return #waiting + #fields
