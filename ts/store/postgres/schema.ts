/**
 * The tables, and the functions that are all that ever reads or writes them: one call of a store is one call of a function.
 *
 * Ids and names are the bytes of their UTF-8, since `text` cannot hold a NUL, and are looked up by SHA-256, since an index entry
 * has 2.7 kB at most. Rows are locked in one order, so that calls wait for but never block one another: tenant, conversation,
 * families by number. Reading locks nothing. Everything is right at `read committed`, the default, and at stricter levels.
 */

/** A row of `artifacts` with its index entries, beside the record; by `pg_total_relation_size`. */
const ROW_BYTES = 400;

/** What a family is used for is written down at most so often, in milliseconds. */
const TOUCH_MS = 60_000;

/**
 * Plans are kept by each session. One that was made while a table was small must not go on reading all of it while it grows:
 * every table here is reached by an index. Holds for functions that are called from there, and for cascades, too.
 */
const BY_INDEX =
  "set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off";

/** How long a conversation without artifacts is remembered: thirty days. */
const FORGOTTEN_MS = 30 * 24 * 3_600_000;

const tables = (s: string) => `
create table ${s}.tenants (
  tenant bigint generated always as identity primary key,
  name bytea not null
);
create unique index on ${s}.tenants (sha256(name));

create table ${s}.salts (
  tenant bigint not null references ${s}.tenants on delete cascade,
  domain bytea not null,
  salt bytea not null
);
create unique index on ${s}.salts (tenant, sha256(domain));

-- Artifacts that went on from one another: they leave together.
create table ${s}.families (
  family bigint generated always as identity primary key,
  tenant bigint not null references ${s}.tenants on delete cascade,
  used double precision not null,
  expires double precision not null,
  artifacts bigint not null default 0,
  bytes bigint not null default 0
) with (fillfactor = 70);
create index on ${s}.families (tenant);

create table ${s}.artifacts (
  -- The newest of a history is the one with the highest.
  artifact bigint generated always as identity primary key,
  tenant bigint not null,
  id bytea not null,
  family bigint not null references ${s}.families on delete cascade,
  -- No reference: it is in the same family.
  parent bigint,
  digest bytea not null,
  turn bytea not null,
  status text not null,
  created double precision not null,
  expires double precision not null,
  messages integer not null,
  tokens integer,
  record bytea not null
);
-- Records are compressed already.
alter table ${s}.artifacts alter column record set storage external;
create unique index on ${s}.artifacts (tenant, id);
create index on ${s}.artifacts (tenant, digest, artifact);
create index on ${s}.artifacts (family);

create table ${s}.conversations (
  conversation bigint generated always as identity primary key,
  tenant bigint not null references ${s}.tenants on delete cascade,
  id bytea not null,
  project bytea not null,
  version bigint not null default 0,
  -- No references: what has left is no longer there to go on from.
  head bigint,
  round bigint,
  updated double precision not null
) with (fillfactor = 70);
create unique index on ${s}.conversations (tenant, sha256(id));
create index on ${s}.conversations (tenant, substring(id from 1 for 256));
create index on ${s}.conversations (updated);

-- The families that a conversation went through.
create table ${s}.family_conversations (
  family bigint not null references ${s}.families on delete cascade,
  conversation bigint not null references ${s}.conversations on delete cascade,
  primary key (family, conversation)
);
create index on ${s}.family_conversations (conversation);
`;

const reading = (s: string) => `
create function ${s}.now_ms() returns double precision language sql volatile as $body$
  select (extract(epoch from clock_timestamp()) * 1000)::double precision
$body$;

-- An artifact with its records, the oldest first: all of them, or those behind _known where it grew from that.
create function ${s}.read(_artifact bigint, _known bytea)
returns table (id text, expires double precision, records text)
language plpgsql stable as $body$
begin
  return query with recursive chain (artifact, parent, depth) as (
    select a.artifact, a.parent, 0 from ${s}.artifacts a
    where a.artifact = _artifact and a.id is distinct from _known
    union all
    select a.artifact, a.parent, c.depth + 1 from chain c join ${s}.artifacts a on a.artifact = c.parent
    where a.id is distinct from _known
  )
  select encode(tip.id, 'hex'), tip.expires, coalesce((
    select encode(string_agg(a.record, ''::bytea order by c.depth desc), 'hex')
    from chain c join ${s}.artifacts a on a.artifact = c.artifact
  ), '')
  from ${s}.artifacts tip where tip.artifact = _artifact;
end
$body$;

-- Whoever just writes the family marks it as used himself, and a clock that jumped back marks nothing.
create function ${s}.touch(_artifact bigint) returns void language plpgsql volatile as $body$
begin
  update ${s}.families set used = ${s}.now_ms() where family = (
    select f.family from ${s}.artifacts a join ${s}.families f on f.family = a.family
    where a.artifact = _artifact and f.used < ${s}.now_ms() - ${TOUCH_MS}
    for no key update of f skip locked
  );
end
$body$;

create function ${s}.load(_tenant bytea, _conversation bytea, _known bytea)
returns table (version bigint, id text, expires double precision, records text)
language plpgsql volatile ${BY_INDEX} as $body$
declare
  _tip bigint;
begin
  select c.version, coalesce(c.round, c.head) into version, _tip
  from ${s}.tenants t join ${s}.conversations c on c.tenant = t.tenant
  where sha256(t.name) = sha256(_tenant) and sha256(c.id) = sha256(_conversation);
  if not found then
    return;
  end if;
  select r.id, r.expires, r.records into id, expires, records from ${s}.read(_tip, _known) r;
  if id is not null then
    perform ${s}.touch(_tip);
  end if;
  return next;
end
$body$;

-- _digests are of 32 bytes each. One of the first is nearly always there, so that they are looked up some at a time.
create function ${s}.find(_tenant bytea, _digests bytea, _known bytea)
returns table (id text, expires double precision, records text)
language plpgsql volatile ${BY_INDEX} as $body$
declare
  _of bigint;
  _artifact bigint;
  _last integer := length(_digests) / 32 - 1;
begin
  select t.tenant into _of from ${s}.tenants t where sha256(t.name) = sha256(_tenant);
  if not found then
    return;
  end if;
  for _first in 0 .. _last by 32 loop
    select newest.artifact into _artifact
    from generate_series(_first, least(_first + 31, _last)) as place (at)
    cross join lateral (
      select a.artifact from ${s}.artifacts a
      where a.tenant = _of and a.digest = substring(_digests from 32 * place.at + 1 for 32)
      order by a.artifact desc limit 1
    ) newest
    order by place.at limit 1;
    if found then
      return query select * from ${s}.read(_artifact, _known);
      perform ${s}.touch(_artifact);
      return;
    end if;
  end loop;
end
$body$;

create function ${s}.list(_tenant bytea, _project bytea, _after bytea, _limit integer)
returns table (
  conversation text, project text, version bigint, messages integer, tokens integer, tool_round boolean,
  updated double precision
)
language plpgsql stable ${BY_INDEX} set enable_sort = off as $body$
declare
  _of bigint := (select t.tenant from ${s}.tenants t where sha256(t.name) = sha256(_tenant));
begin
  return query
    select encode(c.id, 'hex'), encode(c.project, 'hex'), c.version, a.messages, a.tokens, c.round is not null, c.updated
    from ${s}.conversations c left join ${s}.artifacts a on a.artifact = coalesce(c.round, c.head)
    where c.tenant = _of
      and (_project is null or c.project = _project)
      and substring(c.id from 1 for 256) >= coalesce(substring(_after from 1 for 256), ''::bytea)
      and (_after is null or c.id > _after)
    order by substring(c.id from 1 for 256), c.id
    limit _limit;
end
$body$;

create function ${s}.stats() returns table (conversations bigint, artifacts bigint, bytes bigint)
language sql stable as $body$
  select (select count(*) from ${s}.conversations), coalesce(sum(f.artifacts), 0)::bigint, coalesce(sum(f.bytes), 0)::bigint
  from ${s}.families f
$body$;
`;

const writing = (s: string) => `
-- The tenant's number, made where there is none. It cannot be deleted before the end of the transaction.
create function ${s}.tenant_of(_name bytea) returns bigint language plpgsql volatile as $body$
declare
  _tenant bigint;
begin
  loop
    select t.tenant into _tenant from ${s}.tenants t where sha256(t.name) = sha256(_name) for key share;
    if found then
      return _tenant;
    end if;
    insert into ${s}.tenants (name) values (_name) on conflict do nothing;
  end loop;
end
$body$;

create function ${s}.commit(
  _tenant bytea, _conversation bytea, _project bytea, _version bigint, _tool_round boolean, _turn bytea,
  _id bytea, _parent bytea, _digest bytea, _expires double precision, _messages integer, _tokens integer, _record bytea
) returns text language plpgsql volatile ${BY_INDEX} as $body$
declare
  _of bigint := ${s}.tenant_of(_tenant);
  _now double precision := ${s}.now_ms();
  _status text;
  _artifact bigint;
  _family bigint;
  _from bigint;
  _kept_turn bytea;
  _known bigint;
  _was bigint;
begin
  -- Another round is for what another call did meanwhile.
  loop
    select c.conversation, c.version into _known, _was from ${s}.conversations c
    where c.tenant = _of and sha256(c.id) = sha256(_conversation) for no key update;

    select a.artifact, a.family, a.turn, a.status into _artifact, _family, _kept_turn, _status
    from ${s}.artifacts a where a.tenant = _of and a.id = _id;
    if _kept_turn = _turn then
      return _status;
    end if;

    if _known is null and _conversation is not null and _version = 0 then
      insert into ${s}.conversations (tenant, id, project, updated) values (_of, _conversation, _project, _now)
      on conflict do nothing returning conversation, version into _known, _was;
      continue when _known is null;
    end if;
    _status := case
      when _conversation is null or coalesce(_was, 0) = _version then 'committed'
      else 'branched'
    end;

    if _artifact is not null then
      perform from ${s}.families f where f.family = _family for no key update;
      continue when not found;
      -- The record too: it may be what was damaged.
      update ${s}.artifacts set turn = _turn, status = _status, expires = _expires, record = _record
      where artifact = _artifact;
      update ${s}.families set used = greatest(used, _now), expires = greatest(expires, _expires)
      where family = _family;
      exit;
    end if;

    if _parent is null then
      _from := null;
      insert into ${s}.families (tenant, used, expires) values (_of, _now, _expires)
      returning family into _family;
    else
      select a.artifact, a.family into _from, _family from ${s}.artifacts a where a.tenant = _of and a.id = _parent;
      perform from ${s}.families f where f.family = _family for no key update;
      if not found then
        raise exception using errcode = 'PS001', message = 'the parent is gone';
      end if;
    end if;
    insert into ${s}.artifacts (
      tenant, id, family, parent, digest, turn, status, created, expires, messages, tokens, record
    ) values (
      _of, _id, _family, _from, _digest, _turn, _status, _now, _expires, _messages, _tokens, _record
    ) on conflict do nothing returning artifact into _artifact;
    if _artifact is not null then
      update ${s}.families set used = greatest(used, _now), expires = greatest(expires, _expires),
        artifacts = artifacts + 1, bytes = bytes + ${ROW_BYTES} + length(_record)
      where family = _family;
      exit;
    end if;
    delete from ${s}.families where family = _family and artifacts = 0;
  end loop;

  if _known is not null then
    insert into ${s}.family_conversations (family, conversation) values (_family, _known) on conflict do nothing;
    update ${s}.conversations set
      version = version + 1,
      head = case when _tool_round then head else _artifact end,
      round = case when _tool_round then _artifact end,
      updated = greatest(updated, _now)
    where conversation = _known and _status = 'committed';
  end if;
  return _status;
end
$body$;

create function ${s}.abandon(_tenant bytea, _conversation bytea) returns boolean
language plpgsql volatile ${BY_INDEX} as $body$
begin
  -- Turns that were planned on the round come second.
  update ${s}.conversations c set round = null, version = c.version + 1
  where c.tenant = (select t.tenant from ${s}.tenants t where sha256(t.name) = sha256(_tenant))
    and sha256(c.id) = sha256(_conversation) and c.round is not null;
  return found;
end
$body$;

create function ${s}.move(_tenant bytea, _conversation bytea, _project bytea) returns boolean
language plpgsql volatile ${BY_INDEX} as $body$
begin
  update ${s}.conversations c set project = _project
  where c.tenant = (select t.tenant from ${s}.tenants t where sha256(t.name) = sha256(_tenant))
    and sha256(c.id) = sha256(_conversation);
  return found;
end
$body$;

create function ${s}.delete(_tenant bytea, _conversation bytea) returns boolean
language plpgsql volatile ${BY_INDEX} as $body$
declare
  _of bigint;
  _known bigint;
begin
  select t.tenant into _of from ${s}.tenants t where sha256(t.name) = sha256(_tenant) for key share;
  select c.conversation into _known from ${s}.conversations c
  where c.tenant = _of and sha256(c.id) = sha256(_conversation) for update;
  if not found then
    return false;
  end if;
  perform from ${s}.families f
  where f.family in (select o.family from ${s}.family_conversations o where o.conversation = _known)
  order by f.family for update;
  delete from ${s}.families f
  where f.family in (select o.family from ${s}.family_conversations o where o.conversation = _known)
    and not exists (
      select from ${s}.family_conversations o where o.family = f.family and o.conversation <> _known
    );
  delete from ${s}.conversations where conversation = _known;
  return true;
end
$body$;

create function ${s}.delete_tenant(_tenant bytea) returns bigint language plpgsql volatile ${BY_INDEX} as $body$
declare
  _of bigint;
  _removed bigint;
begin
  select t.tenant into _of from ${s}.tenants t where sha256(t.name) = sha256(_tenant) for update;
  if not found then
    return 0;
  end if;
  perform from ${s}.families f where f.tenant = _of order by f.family for update;
  with gone as (delete from ${s}.families f where f.tenant = _of returning f.artifacts)
  select coalesce(sum(g.artifacts), 0) into _removed from gone g;
  delete from ${s}.tenants where tenant = _of;
  return _removed;
end
$body$;

create function ${s}.salt(_tenant bytea, _domain bytea, _fresh bytea) returns text
language plpgsql volatile ${BY_INDEX} as $body$
declare
  _of bigint := ${s}.tenant_of(_tenant);
  _salt bytea;
begin
  insert into ${s}.salts (tenant, domain, salt) values (_of, _domain, _fresh) on conflict do nothing;
  select k.salt into _salt from ${s}.salts k where k.tenant = _of and sha256(k.domain) = sha256(_domain);
  return encode(_salt, 'hex');
end
$body$;

-- Some of what has expired, else some of the least recently used over the bound. What is just written is left for the next time.
create function ${s}.expire(_max_bytes double precision, _most integer, _wait boolean)
returns table (families bigint, artifacts bigint)
language plpgsql volatile ${BY_INDEX} as $body$
declare
  _key bigint := hashtextextended('promptseam expire ${s}', 0);
begin
  if _wait then
    perform pg_advisory_xact_lock(_key);
  elsif not pg_try_advisory_xact_lock(_key) then
    return;
  end if;
  with leaving as (
    select f.family from ${s}.families f where f.expires <= ${s}.now_ms()
    order by f.family limit _most for update skip locked
  ), gone as (
    delete from ${s}.families f using leaving l where f.family = l.family returning f.artifacts
  )
  select count(*), coalesce(sum(g.artifacts), 0) into families, artifacts from gone g;
  if families = 0 and _max_bytes < (select sum(f.bytes) from ${s}.families f) then
    with ordered as (
      select f.family, sum(f.bytes) over (order by f.used desc, f.family desc) as with_newer from ${s}.families f
    ), leaving as (
      select f.family from ${s}.families f join ordered o on o.family = f.family
      where o.with_newer > _max_bytes
      order by o.with_newer desc limit _most for update of f skip locked
    ), gone as (
      delete from ${s}.families f using leaving l where f.family = l.family returning f.artifacts
    )
    select count(*), coalesce(sum(g.artifacts), 0) into families, artifacts from gone g;
  end if;
  -- What is left of a conversation only tells that it was known once.
  delete from ${s}.conversations c where c.conversation in (
    select o.conversation from ${s}.conversations o
    where o.updated < ${s}.now_ms() - ${FORGOTTEN_MS} and not exists (
      select from ${s}.family_conversations f where f.conversation = o.conversation
    )
    limit _most for update skip locked
  );
  return next;
end
$body$;
`;

/** What makes the version of each place, from 1 on, out of the one before; in a schema by its quoted name. */
export const MIGRATIONS: readonly ((schema: string) => string)[] = [
  (schema) => tables(schema) + reading(schema) + writing(schema),
];
