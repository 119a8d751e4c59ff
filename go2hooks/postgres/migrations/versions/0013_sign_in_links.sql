-- Links that `go2hooks up` and `demo` print, each of which signs in to the dashboard once. Using one deletes its row; rows past
-- their time are deleted when the next link is made.
CREATE TABLE sign_in_links (
    token_hash  bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),     -- SHA-256
    key_id      text NOT NULL REFERENCES api_keys ON DELETE CASCADE,
    expires_at  timestamptz NOT NULL
);
