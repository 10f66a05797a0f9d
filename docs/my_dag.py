from taskserver.worker import dag, result, task


@dag
def my_dag():
    @task
    def fetch_data():
        return {"answer": 42}

    @result
    @task
    def compute(data):
        return data["answer"] * 2

    compute(fetch_data())


my_dag()
