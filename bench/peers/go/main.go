// The counter in Go: net/http, pgx's pool, go-redis.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/jackc/pgx/v4/pgxpool"
	"gopkg.in/redis.v5"
)

const page = `<!doctype html>
<html lang="pt-BR">
<head><meta charset="utf-8"><title>Contador de visitas</title></head>
<body>
<h1>Contador de visitas</h1>
<p>Total de acessos (PostgreSQL): <strong>%d</strong></p>
<p>Contador em cache (Redis): <strong>%d</strong></p>
</body>
</html>
`

func setting(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

func main() {
	ctx := context.Background()
	pool, err := pgxpool.Connect(ctx, fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s pool_max_conns=%s",
		os.Getenv("DB_HOST"), setting("DB_PORT", "5432"), os.Getenv("DB_USER"), os.Getenv("DB_PASSWORD"),
		os.Getenv("DB_NAME"), setting("POOL", "64")))
	if err != nil {
		log.Fatal(err)
	}
	_, err = pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS acessos (id SERIAL PRIMARY KEY, momento TIMESTAMPTZ NOT NULL DEFAULT now())")
	if err != nil {
		log.Fatal(err)
	}
	cache := redis.NewClient(&redis.Options{Addr: os.Getenv("REDIS_HOST") + ":" + setting("REDIS_PORT", "6379")})

	http.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok\n") })
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		total, cached, err := count(r.Context(), pool, cache)
		switch {
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		case r.Header.Get("Accept") == "application/json":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"total":%d,"cache":%d}`, total, cached)
		default:
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprintf(w, page, total, cached)
		}
	})
	log.Fatal(http.ListenAndServe(setting("HOST", "127.0.0.1")+":"+setting("PORT", "5000"), nil))
}

func count(ctx context.Context, pool *pgxpool.Pool, cache *redis.Client) (total, cached int64, err error) {
	connection, err := pool.Acquire(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer connection.Release()
	if _, err = connection.Exec(ctx, "INSERT INTO acessos DEFAULT VALUES"); err != nil {
		return 0, 0, err
	}
	if err = connection.QueryRow(ctx, "SELECT count(*) FROM acessos").Scan(&total); err != nil {
		return 0, 0, err
	}
	cached, err = cache.Incr("contador_cache").Result()
	return total, cached, err
}
