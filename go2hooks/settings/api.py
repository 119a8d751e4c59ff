"""Where the API listens, and the limits for its clients."""

from pydantic import Field, PositiveInt

from go2hooks.settings.environment import Environment


class ApiSettings(Environment):
    api_host: str = Field("127.0.0.1", description="address that the API listens on")
    api_port: int = Field(8080, ge=0, le=65535, description="port of the API; 0 takes a free one")
    api_threads: PositiveInt = Field(16, description="requests that the API answers at once")
    api_max_body_bytes: PositiveInt = Field(65536, description="largest request body that the API reads")
    api_failed_logins_per_minute: int = Field(
        60, ge=0, description="wrong API keys that one address may send; then it has to wait; 0 for no limit"
    )
    api_requests_per_s: int = Field(
        200, ge=0, description="requests per second with one API key, ten seconds' worth at once; 0 for no limit"
    )
    webhooks_per_account: PositiveInt = Field(1000, description="webhooks that an account may have")
    operators_account: str | None = Field(
        None,
        min_length=1,
        description="account whose admin keys open the dashboard's page about the whole deployment; without it nobody's do",
    )
