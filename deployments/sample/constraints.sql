-- The sample shop after its data: keys, indexes, triggers, views, comments and grants.

ALTER TABLE shop.customers ADD CONSTRAINT customers_pkey PRIMARY KEY (id);
ALTER TABLE shop.products ADD CONSTRAINT products_pkey PRIMARY KEY (id);
ALTER TABLE shop.orders ADD CONSTRAINT orders_pkey PRIMARY KEY (id);
ALTER TABLE shop.order_items ADD CONSTRAINT order_items_pkey PRIMARY KEY (order_id, line);
ALTER TABLE shop.events ADD CONSTRAINT events_pkey PRIMARY KEY (id, occurred_at);

ALTER TABLE shop.products ADD CONSTRAINT products_sku_key UNIQUE (sku);
ALTER TABLE shop.products ADD CONSTRAINT "price isn't negative" CHECK (price >= 0);
ALTER TABLE shop.order_items ADD CONSTRAINT order_items_quantity_check CHECK (quantity BETWEEN 1 AND 99);
ALTER TABLE shop.delivery_slots ADD CONSTRAINT slots_do_not_overlap EXCLUDE USING gist (slot WITH &&);

ALTER TABLE shop.categories ADD FOREIGN KEY (parent_id) REFERENCES shop.categories ON DELETE CASCADE;
ALTER TABLE shop.products ADD FOREIGN KEY (category_id) REFERENCES shop.categories;
ALTER TABLE shop.orders ADD FOREIGN KEY (customer_id) REFERENCES shop.customers DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE shop.order_items ADD FOREIGN KEY (order_id) REFERENCES shop.orders ON DELETE CASCADE;
ALTER TABLE shop.order_items ADD FOREIGN KEY (product_id) REFERENCES shop.products ON UPDATE RESTRICT;

CREATE UNIQUE INDEX customers_email ON shop.customers (lower(email::text));
CREATE INDEX customers_tags ON shop.customers USING gin (tags);
CREATE INDEX products_search ON shop.products USING gin (search);
CREATE INDEX products_colours ON shop.products USING gin (colours) WHERE colours IS NOT NULL;
CREATE INDEX orders_customer ON shop.orders (customer_id, placed_at DESC NULLS LAST) INCLUDE (total);
CREATE INDEX "orders in a cart" ON shop.orders (id) WHERE status = 'cart';
CREATE INDEX events_occurred_at ON shop.events USING brin (occurred_at);
CREATE STATISTICS shop.orders_status_total ON status, total FROM shop.orders;

CREATE TRIGGER touch_products BEFORE UPDATE ON shop.products FOR EACH ROW EXECUTE FUNCTION shop.touch();
CREATE TRIGGER touch_orders BEFORE UPDATE ON shop.orders FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION shop.touch();
CREATE TRIGGER audit_products AFTER UPDATE OR DELETE ON shop.products FOR EACH ROW EXECUTE FUNCTION shop.audit();

CREATE VIEW shop.customer_orders AS
    SELECT customers.id, customers.full_name, shop.full_address(customers.home) AS lives_at,
           count(orders.id) AS orders, sum(orders.total) AS spent
    FROM shop.customers LEFT JOIN shop.orders ON orders.customer_id = customers.id
    GROUP BY customers.id;
CREATE VIEW public."big spenders" WITH (security_barrier = true) AS
    SELECT id, full_name, spent FROM shop.customer_orders WHERE spent > 1000;

CREATE MATERIALIZED VIEW shop.sales_by_month AS
    SELECT date_trunc('month', placed_at AT TIME ZONE 'UTC')::date AS month, count(*) AS orders, sum(total) AS turnover
    FROM shop.orders WHERE status <> 'cart' GROUP BY 1
    WITH NO DATA;
CREATE UNIQUE INDEX sales_by_month_month ON shop.sales_by_month (month);
REFRESH MATERIALIZED VIEW shop.sales_by_month;

COMMENT ON SCHEMA shop IS 'A shop that doesn''t exist: "Größe", Übermaß & Co. 🛒';
COMMENT ON TABLE shop.customers IS 'People''s data; all of it is invented.';
COMMENT ON COLUMN shop.customers.home IS 'Straße, PLZ, "Ort" und Land; a \ backslash and a $1';
COMMENT ON TABLE shop.events IS 'Text that looks like a dump:
COPY shop.events (id) FROM stdin;
\.
';
COMMENT ON FUNCTION shop.import_manual() IS '-- PostgreSQL database dump complete';
COMMENT ON TYPE shop.order_status IS 'From ''cart'' to ''zurückgegeben''';
COMMENT ON TABLE public."Währungs ""Kurse"" 🪙" IS 'A name with quotes, an umlaut and a coin';
COMMENT ON INDEX shop."orders in a cart" IS 'Partial: most orders aren''t in a cart';

GRANT USAGE ON SCHEMA shop TO shop_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO shop_reader;
REVOKE SELECT ON shop.audit_log FROM shop_reader;
GRANT SELECT (id, action), UPDATE (action) ON shop.audit_log TO shop_reader;
GRANT USAGE ON SEQUENCE shop.invoice_numbers TO shop_reader WITH GRANT OPTION;
GRANT SELECT ON public."Währungs ""Kurse"" 🪙" TO shop_reader;
REVOKE EXECUTE ON FUNCTION shop.import_manual() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shop.import_manual() TO shop_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO shop_reader;
