// A wasi:http function in JavaScript: the engine turns requests into fetch events.
addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const { pathname, searchParams } = new URL(request.url);
  if (pathname !== "/greet") return Response.json({ error: "no such path" }, { status: 404 });
  const name = request.method === "POST" ? (await request.json()).name : searchParams.get("name");
  return Response.json({ greeting: `Hello, ${name ?? "stranger"}!` });
}
