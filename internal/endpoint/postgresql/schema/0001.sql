create table bulk_endpoint.instance (
    id bigint not null
);
insert into bulk_endpoint.instance values (1 + floor(random() * 2147483646)::bigint);

create table bulk_endpoint.jobs (
    id           bigint generated always as identity (start with 1000) primary key,
    token        text unique,
    digest       text not null,
    spool        text not null unique,
    bytes        bigint not null,
    object       text not null,
    format       text not null,
    action       text not null,
    key          text not null,
    batch_size   integer not null,
    path         text not null,
    metadata     text not null,
    callback_url text not null,
    state        text not null default 'CREATED',
    records      bigint not null default 0,
    failed       bigint not null default 0,
    error        text not null default '',
    created_at   timestamptz not null default now(),
    started_at   timestamptz,
    finished_at  timestamptz
);
create index jobs_unfinished on bulk_endpoint.jobs (object, id) where finished_at is null;
create index jobs_finished on bulk_endpoint.jobs (finished_at) where finished_at is not null;

create table bulk_endpoint.row_errors (
    job      bigint not null references bulk_endpoint.jobs on delete cascade,
    row      bigint not null,
    status   text not null,
    response text not null,
    primary key (job, row)
);
