-- with lists
-- Put dead letters back into their queue under the same ids: delivered and tried never before, their failure forgotten.
-- KEYS  1 registry of queues · 2 counters · 3 delayed · 4 times of dead letters · 5 dead letters
--       6.. the queue's own lists, most urgent first
-- ARGV  1 queue · 2 the lists' steps, comma-separated · 3 record prefix · 4 result prefix · 5 payload prefix
--       6 history prefix · 7 prefix of dead payloads · 8 prefix of dead histories · 9 record TTL (s) · 10 payload TTL (s)
--       11 how long letters are kept (s) · 12 incidents kept · 13 the incident of a replay · 14.. ids
-- Reply {-1} for an unknown queue, else {max depth, depth, code per id...}: 0 the queue is full · 1 done
--       2 the job waits or runs already · 3 there is no such letter · 4 the job has ended otherwise since
-- Like any new work, it is refused by a server without memory; nothing has changed then.
local info = redis.call('HGET', KEYS[1], ARGV[1])
if not info then return {-1} end
local max_depth = cjson.decode(info).max_depth
local queue, places = queue_of(ARGV[1], ARGV[2], {unpack(KEYS, 6)}), {}
for k, step in ipairs(queue.steps) do places[step] = k end
local depth = redis.call('ZCARD', KEYS[3]) + waiting_in(queue)
local ordinal = depth + tonumber(redis.call('HGET', KEYS[2], 'taken') or 0)
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local pushed = 0
local function replay(id, letter)
  local size, step = string.match(letter, '^{"at":[%d%.]+,"size":(%d+),"step":(%d+)')
  local stored = string.match(letter, '^[^\n]*\n(.*)$')
  local message = string.match(stored, '^\1%d+\2(.*)$') or stored
  push_new(queue, places[step] or 1, message)
  pushed = pushed + 1
  if string.match(message, '"id": ?"([^"\\]+)"') == id then
    redis.call('SET', ARGV[3] .. id, 'q|' .. (ordinal + pushed) .. '|' .. ARGV[1], 'EX', ARGV[9])
    if redis.call('EXISTS', ARGV[7] .. id) == 1 then
      redis.call('RENAME', ARGV[7] .. id, ARGV[5] .. id)
      redis.call('EXPIRE', ARGV[5] .. id, ARGV[10])
    end
    if redis.call('EXISTS', ARGV[8] .. id) == 1 then redis.call('RENAME', ARGV[8] .. id, ARGV[6] .. id) end
    redis.call('RPUSH', ARGV[6] .. id, string.format('{"at":%.3f,', now) .. string.sub(ARGV[13], 2))
    redis.call('LTRIM', ARGV[6] .. id, -tonumber(ARGV[12]), -1)
    redis.call('EXPIRE', ARGV[6] .. id, ARGV[9])
    redis.call('DEL', ARGV[4] .. id)
  end
  redis.call('HINCRBY', KEYS[5], '', '-' .. size)
  redis.call('HDEL', KEYS[5], id)
  redis.call('ZREM', KEYS[4], id)
end

local reply = {max_depth, depth}
for i = 14, #ARGV do
  local id, code = ARGV[i], 1
  local died = redis.call('ZSCORE', KEYS[4], id)
  local letter = died and died + ARGV[11] > now and redis.call('HGET', KEYS[5], id)
  letter = letter and string.match(letter, '^{"at":[%d%.]+,"size":%d+,"step":%d+,.*') or nil
  local status = string.match(redis.call('GETRANGE', ARGV[4] .. id, 0, 40), '^{"status": ?"(%u+)"')
  if string.match(redis.call('GET', ARGV[3] .. id) or '', '^[qrp]|') then
    code = 2
  elseif not letter then
    code = 3
  elseif status == 'SUCCESS' or status == 'REVOKED' then
    code = 4
  elseif depth + pushed >= max_depth then
    code = 0
  else
    replay(id, letter)
  end
  reply[#reply + 1] = code
end
settle(queue)
if pushed > 0 then redis.call('HINCRBY', KEYS[2], 'replayed', pushed) end
return reply
