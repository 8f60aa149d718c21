-- The lists of one queue, for the scripts that fill or empty them: per priority step Celery's own, the plain one, and each
-- tenant's. The tenant without a name, '', has the plain lists; any Celery client may push there.
local function queue_of(name, steps, plain)
  local queue = {name = name, steps = {}, plain = plain, touched = {}}
  for step in string.gmatch(steps, '%d+') do queue.steps[#queue.steps + 1] = step end
  return queue
end

-- A header, without reading JSON: quotes in a body are escaped, or the body is base64.
local function header(message, name, form)
  local _, at = string.find(message, name, 1, true)
  return at and string.match(message, form, at + 1)
end

-- What a job counts for while it waits. A message that doesn't say counts for nothing: nobody counted it when it came.
local function bytes_of(message)
  local digits = header(message, '"pipemill_bytes":', '^ ?(%d+)')
  return digits and #digits <= 10 and tonumber(digits) or 0
end

-- What a turn costs.
local function cost_of(message)
  local bytes = bytes_of(message)
  return bytes > 0 and bytes or #message
end

-- Whose list a job belongs into. One that was delivered before (first byte 1) waits in the plain list, where it is looked
-- for first; so does every job of a queue that isn't fair.
local function home(queue, message)
  if string.byte(message, 1) == 1 then return '' end
  local tenant = header(message, '"pipemill_tenant":', '^ ?"([%w._@+-]+)"')
  if not tenant or #tenant > 64 then return '' end
  if queue.fair == nil then
    queue.fair = not string.find(redis.call('HGET', 'pipemill:queues', queue.name) or '', '"fair":false', 1, true)
  end
  return queue.fair and tenant or ''
end

local function list_of(queue, k, tenant)
  return tenant == '' and queue.plain[k] or 'pipemill:tenant:' .. queue.steps[k] .. ':' .. queue.name .. ':' .. tenant
end

-- The tenants with jobs of a step, by whose turn it is. Turns are counted in what was taken, and '|' has the last one's.
local function ring_of(queue, k) return 'pipemill:ring:' .. queue.steps[k] .. ':' .. queue.name end

-- Give a tenant its next turn, unless it has one: as much as its job costs is taken from the others first.
local function join(queue, k, tenant, cost)
  local ring = ring_of(queue, k)
  if redis.call('ZSCORE', ring, tenant) then return end
  redis.call('ZADD', ring, (redis.call('ZSCORE', ring, '|') or 0) + cost, tenant)
end

-- Note that a list changed by so many bytes; `settle` writes it down.
local function note(queue, k, tenant, bytes)
  local field = queue.steps[k] .. '|' .. tenant
  local list = queue.touched[field] or {k = k, tenant = tenant, bytes = 0}
  list.bytes = list.bytes + bytes
  queue.touched[field] = list
end

-- Where a tenant's new job goes: at the end of its list, but its only one into the plain list while that is empty: who
-- has room for it watches that one.
local function place_of(queue, k, tenant)
  if tenant == '' or k > 1 or redis.call('EXISTS', queue.plain[1], list_of(queue, 1, tenant)) > 0 then return tenant end
  return ''
end

-- Put a new job at the end of the list it belongs into.
local function push_new(queue, k, message)
  local place = place_of(queue, k, home(queue, message))
  redis.call('LPUSH', list_of(queue, k, place), message)
  if place ~= '' then join(queue, k, place, cost_of(message)) end
  note(queue, k, place, bytes_of(message))
end

-- How many jobs wait in all lists.
local function waiting_in(queue)
  local jobs = tonumber(redis.call('HGET', 'pipemill:waiting:' .. queue.name, '*') or 0)
  for k = 1, #queue.plain do jobs = jobs + redis.call('LLEN', queue.plain[k]) end
  return jobs
end

-- Put a job at the head of the list it belongs into.
local function put_back(queue, k, message)
  local tenant = home(queue, message)
  redis.call('RPUSH', list_of(queue, k, tenant), message)
  if tenant ~= '' then join(queue, k, tenant, cost_of(message)) end
  note(queue, k, tenant, bytes_of(message))
end

-- Bring some of a hash's counts to what they are now, and their sum with them.
local function account(key, fields, now)
  if #fields == 0 then return end
  local before, set, gone, more = redis.call('HMGET', key, unpack(fields)), {}, {}, 0
  for i, field in ipairs(fields) do
    local was = tonumber(before[i] or 0)
    more = more + now[i] - was
    if now[i] == 0 and was ~= 0 then gone[#gone + 1] = field end
    if now[i] ~= 0 and now[i] ~= was then
      set[#set + 1] = field
      set[#set + 1] = now[i]
    end
  end
  if #set > 0 then redis.call('HSET', key, unpack(set)) end
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  if more ~= 0 and redis.call('HINCRBY', key, '*', more) <= 0 then redis.call('HDEL', key, '*') end
end

-- Write down how many jobs and bytes wait in the lists that changed. Jobs are counted anew, and an empty list has no bytes:
-- no miscount outlives it.
local function settle(queue)
  local named, jobs, all, lengths, changes = {}, {}, {}, {}, {}
  for field, list in pairs(queue.touched) do
    local count = redis.call('LLEN', list_of(queue, list.k, list.tenant))
    all[#all + 1], lengths[#lengths + 1], changes[#changes + 1] = field, count, list.bytes
    if list.tenant ~= '' then named[#named + 1], jobs[#jobs + 1] = field, count end
  end
  if #all == 0 then return end
  account('pipemill:waiting:' .. queue.name, named, jobs)
  local bytes_key = 'pipemill:bytes:' .. queue.name
  local before = redis.call('HMGET', bytes_key, unpack(all))
  for i, change in ipairs(changes) do
    changes[i] = lengths[i] == 0 and 0 or math.max(tonumber(before[i] or 0) + change, 0)
  end
  account(bytes_key, all, changes)
end
