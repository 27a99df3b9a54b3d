//! The head of the OpenAPI document; paths and schemas come from the handlers and the wire types.

use tiger_wire::limits::DEFAULT_PORT;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, ServerBuilder};

/// Title, version, server, how to authenticate.
pub fn document() -> OpenApi {
    let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key: `tiger_` and 43 characters")).build();
    let info = InfoBuilder::new()
        .title("TigerCity")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Generate with language models, and teach your own by giving rewards to their responses."))
        .license(Some(LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).build()));
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([ServerBuilder::new().url(format!("http://localhost:{DEFAULT_PORT}")).build()]))
        .components(Some(ComponentsBuilder::new().security_scheme("api_key", SecurityScheme::Http(key)).build()))
        .build()
}
