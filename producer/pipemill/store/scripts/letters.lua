-- List dead letters, the latest first, without their messages. What older workers gave up is taken over first.
-- KEYS  1 times of dead letters · 2 dead letters · 3 the list in which older workers keep theirs
-- ARGV  1 how long letters are kept (s) · 2 at most so many · 3 what a letter that was taken over says
-- Reply {id, what is said of it, ...}
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

local old = redis.call('LRANGE', KEYS[3], -1000, -1)
for i = #old, 1, -1 do
  local stored, at = old[i], string.format('%.6f', now)
  local id = string.match(stored, '"id": ?"([^"\\]+)"') or 'unreadable-' .. redis.sha1hex(stored)
  if redis.call('ZADD', KEYS[1], 'NX', at, id) == 1 then
    local size = #stored + #ARGV[3] + 100
    local head = string.format('{"at":%.3f,"size":%.0f,"step":0,', now, size)
    redis.call('HSET', KEYS[2], id, head .. string.sub(ARGV[3], 2) .. '\n' .. stored)
    redis.call('HINCRBY', KEYS[2], '', string.format('%.0f', size))
  end
end
if #old > 0 then
  redis.call('LTRIM', KEYS[3], 0, -#old - 1)
  redis.call('EXPIRE', KEYS[1], ARGV[1])
  redis.call('EXPIRE', KEYS[2], ARGV[1])
end

local reply = {}
local after = string.format('(%.6f', now - ARGV[1])
for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', after, 'LIMIT', 0, ARGV[2])) do
  local letter = redis.call('HGET', KEYS[2], id)
  if letter then
    reply[#reply + 1] = id
    reply[#reply + 1] = string.match(letter, '^[^\n]*')
  end
end
return reply
