-- Accept jobs into a queue: depth cap with partial accept, idempotency, job record. A job whose deadline has passed ends
-- here as expired, and takes no room.
-- KEYS  1 registry of queues · 2 counters · 3 delayed · 4.. the queue's lists, most urgent first
-- ARGV  1 queue · 2 record prefix · 3 result prefix · 4 record TTL (s) · 5 idempotency TTL (s)
--       6 payload prefix · 7 payload TTL (s) · 8 result document of an expired job, as far as its id
--       then per job: id · index of its list (0-based) · idempotency key or '' · uploaded payload or ''
--                     deadline (s since the epoch) or '' · message
-- Reply {-1} for an unknown queue, else {max depth, depth, id per accepted job...}; a job that is already known answers
--       with the id it is known by. Jobs behind the last accepted one were refused.
local info = redis.call('HGET', KEYS[1], ARGV[1])
if not info then return {-1} end
info = cjson.decode(info)
local depth = redis.call('ZCARD', KEYS[3])
for i = 4, #KEYS do depth = depth + redis.call('LLEN', KEYS[i]) end
local ordinal = depth + tonumber(redis.call('HGET', KEYS[2], 'taken') or 0)
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local reply, pushed, expired = {info.max_depth, depth}, 0, 0
for i = 9, #ARGV, 6 do
  local id, once, upload, deadline = ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local known = once ~= '' and redis.call('GET', once)
  -- A key whose job has left no trace is free again: its answer could not be had any more.
  if known and redis.call('EXISTS', ARGV[2] .. known, ARGV[3] .. known) == 0 then known = false end
  if known then
    reply[#reply + 1] = known
  elseif redis.call('EXISTS', ARGV[2] .. id, ARGV[3] .. id) > 0 then
    reply[#reply + 1] = id
  elseif deadline ~= '' and tonumber(deadline) < now then
    local document = ARGV[8] .. cjson.encode(id) .. '}'
    redis.call('SET', ARGV[3] .. id, document, 'EX', info.result_ttl_seconds or 3600)
    redis.call('PUBLISH', ARGV[3] .. id, document)
    if once ~= '' then redis.call('SET', once, id, 'EX', ARGV[5]) end
    expired = expired + 1
    reply[#reply + 1] = id
  else
    if depth + pushed >= info.max_depth then break end
    pushed = pushed + 1
    redis.call('LPUSH', KEYS[4 + ARGV[i + 1]], ARGV[i + 5])
    local record = 'q|' .. (ordinal + pushed) .. '|' .. ARGV[1]
    if deadline ~= '' then record = record .. '|' .. deadline end
    redis.call('SET', ARGV[2] .. id, record, 'EX', ARGV[4])
    if once ~= '' then redis.call('SET', once, id, 'EX', ARGV[5]) end
    if upload ~= '' and redis.call('EXISTS', upload) == 1 then
      redis.call('RENAME', upload, ARGV[6] .. id)
      redis.call('EXPIRE', ARGV[6] .. id, ARGV[7])
    end
    reply[#reply + 1] = id
  end
end
if pushed + expired > 0 then redis.call('HINCRBY', KEYS[2], 'enqueued', pushed + expired) end
if expired > 0 then redis.call('HINCRBY', KEYS[2], 'expired', expired) end
return reply
