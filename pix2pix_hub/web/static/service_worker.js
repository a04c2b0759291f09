"use strict";
// Keeps what was loaded, so that the page works without a network, and sets the headers that threads need on hosts that
// do not. `pix2pix-hub web` puts the site's digest in the place of VERSION: another site begins with an empty cache.

const OURS = `pix2pix ${self.registration.scope} `; // other sites may share the host
const CACHE = `${OURS}VERSION`;
const SHELL = ["./", "page.js", "style.css", "worker.js", "site.json"];
const LARGE = /\.(onnx|wasm|mjs)$/; // never change within a version: not asked for again
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(SHELL)));
});

self.addEventListener("activate", (event) => {
  const clean = async () => {
    const names = await caches.keys();
    await Promise.all(names.filter((name) => name.startsWith(OURS) && name !== CACHE).map((name) => caches.delete(name)));
    await self.clients.claim();
  };
  event.waitUntil(clean());
});

self.addEventListener("fetch", (event) => {
  const isWeb = event.request.method === "GET" && event.request.url.startsWith("http");
  if (isWeb) event.respondWith(answer(event.request));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: request.mode === "navigate" });
  if (kept && LARGE.test(new URL(request.url).pathname)) return kept;
  try {
    const own = request.url.startsWith(self.location.origin);
    const fresh = await fetch(request, own ? { cache: "no-cache" } : {});
    const answered = isolated(fresh, request);
    if (answered.status === 200) await cache.put(request, answered.clone()).catch(() => {}); // no room: another time
    return answered;
  } catch (error) {
    if (kept) return isolated(kept, request);
    throw error;
  }
}

function isolated(response, request) {
  if (!request.url.startsWith(self.location.origin) || response.redirected) return response;
  const headers = new Headers(response.headers);
  Object.entries(ISOLATED).forEach(([name, value]) => headers.set(name, value));
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
