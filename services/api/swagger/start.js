SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  validatorUrl: null, // asks no other host
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
