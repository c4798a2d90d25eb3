-- Roles of idemwatch, without a login. Run once in its database, as a superuser, before the first
-- `idemwatch db upgrade`; again whenever you like. Then let users of yours be members:
--
--     CREATE ROLE jobs_worker LOGIN PASSWORD '...' IN ROLE idemwatch_worker;
--     CREATE ROLE jobs_migrator LOGIN PASSWORD '...' IN ROLE idemwatch_owner;
--     ALTER ROLE jobs_migrator SET role = idemwatch_owner;   -- who makes the tables owns them
--
-- The tables stand in the schema `public`; for another one, change its name here.
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['owner', 'worker', 'publisher', 'beat', 'exporter', 'operator',
                                'purge']
    LOOP
        IF to_regrole('idemwatch_' || name) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', 'idemwatch_' || name);
        END IF;
    END LOOP;
END $$;

-- PostgreSQL before 15 let everybody make tables there, and search_path would find them.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO idemwatch_owner;
GRANT USAGE ON SCHEMA public TO idemwatch_worker, idemwatch_publisher, idemwatch_beat,
    idemwatch_exporter, idemwatch_operator, idemwatch_purge;
