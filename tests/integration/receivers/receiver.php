<?php // Answers each POST with what the functions of the page say about it: Go2's signature, Standard Webhooks.
require "verify.php";
$secret = getenv("WEBHOOK_SECRET");
$body = file_get_contents("php://input");
echo json_encode(body_ok($secret, $_SERVER, $body)), " ", json_encode(standard_ok($secret, $_SERVER, $body));
